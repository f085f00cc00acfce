// Checks webhooks as apps do: with Nango's SDK, and with the library of Standard
// Webhooks. Reads a list of {secret, body, headers} as JSON and writes one of
// {nango, standard}: whether each took it.
import { readFileSync } from 'node:fs'
import { Nango } from '@nangohq/node'
import { Webhook } from 'standardwebhooks'

function standard(secret, body, headers) {
	try {
		new Webhook(secret).verify(body, headers)
		return true
	} catch {
		return false
	}
}

const webhooks = JSON.parse(readFileSync(0, 'utf8'))
const answers = webhooks.map(({ secret, body, headers }) => {
	const nango = new Nango({
		secretKey: '00000000-0000-4000-8000-000000000000',
		host: 'http://localhost:1',
		webhookSigningKey: secret,
	})
	return {
		nango: nango.verifyIncomingWebhookRequest(body, headers),
		standard: standard(secret, body, headers),
	}
})
process.stdout.write(JSON.stringify(answers))
