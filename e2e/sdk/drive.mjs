// Does with Nango's SDK, unmodified, what apps do, against the keycaddy at HOST:
// every method but those of syncs, actions, records and functions, which have to
// be told that there are none. KEY may do everything, NARROW reads no
// credentials. There is an integration demo, with alice, the connection of u1.
import assert from 'node:assert/strict'
import { Nango } from '@nangohq/node'

const { HOST: host, KEY: secretKey, NARROW } = process.env
const nango = new Nango({ host, secretKey })

// fails expects a call to be refused, as the SDK's users see it.
async function fails(call, status, code) {
	try {
		await call
	} catch (err) {
		const got = err.response
		assert(got, String(err))
		assert.equal(`${got.status} ${got.data?.error?.code}`, `${status} ${code}`, JSON.stringify(got.data))
		return got.data.error
	}
	assert.fail(`it is not refused with ${status} ${code}`)
}

const tests = {
	async providers() {
		const { data } = await nango.listProviders({ search: 'github' })
		assert(data.some((p) => p.name === 'github' && p.auth_mode === 'OAUTH2'))
		assert.equal((await nango.getProvider({ provider: 'hubspot' })).data.name, 'hubspot')
		assert.deepEqual((await nango.getProviderTemplates({ provider: 'hubspot' })).data, [])
		await fails(nango.getProvider({ provider: 'none' }), 404, 'not_found')
	},

	async integrations() {
		const credentials = { type: 'OAUTH2', client_id: 'an id', client_secret: 'canary-client-secret', scopes: 'repo' }
		const made = await nango.createIntegration({ unique_key: 'made', provider: 'github', display_name: 'Made', credentials })
		assert.equal(made.data.unique_key, 'made')
		const { configs } = await nango.listIntegrations()
		assert.deepEqual(configs.map((c) => c.unique_key).sort(), ['demo', 'made'])
		const got = await nango.getIntegration({ uniqueKey: 'made' }, { include: ['credentials'] })
		assert.equal(got.data.provider, 'github')
		assert.equal(got.data.credentials.client_id, 'an id')
		assert.equal((await nango.getIntegration({ uniqueKey: 'made' })).data.credentials, undefined)
		const changed = await nango.updateIntegration({ uniqueKey: 'made' }, { display_name: 'Changed' })
		assert.equal(changed.data.display_name, 'Changed')
		await fails(nango.createIntegration({ unique_key: 'made', provider: 'github' }), 400, 'invalid_body')
		await fails(nango.createIntegration({ unique_key: 'other', provider: 'none' }), 400, 'invalid_body')
		await fails(nango.getIntegration({ uniqueKey: 'none' }), 404, 'not_found')
		await fails(nango.createQuickstartIntegration({ provider: 'github' }), 400, 'invalid_body')
		assert.equal((await nango.deleteIntegration('made')).data.success, true)
		await fails(nango.deleteIntegration('made'), 404, 'not_found')
	},

	async sessions() {
		const { data } = await nango.createConnectSession({
			tags: { end_user_id: 'u2' },
			allowed_integrations: ['demo'],
			integrations_config_defaults: { demo: { connection_config: {} } },
		})
		assert.match(data.token, /^nango_connect_session_/)
		assert.equal((await fetch(data.connect_link)).status, 200)
		assert(new Date(data.expires_at) > new Date())
		const again = await nango.createReconnectSession({ connection_id: 'alice', integration_id: 'demo', tags: { end_user_id: 'u1' } })
		assert.match(again.data.token, /^nango_connect_session_/)
		await fails(nango.createConnectSession({ tags: { end_user_id: 'u2' }, allowed_integrations: ['none'] }), 400, 'invalid_body')
		await fails(nango.createConnectSession({ unknown: true }), 400, 'invalid_body')
		await fails(nango.createReconnectSession({ connection_id: 'none', integration_id: 'demo' }), 400, 'invalid_body')
	},

	async connections() {
		assert.deepEqual((await nango.listConnections()).connections.map((c) => c.connection_id), ['alice'])
		assert.equal((await nango.listConnections('alice', 'ali', { endUserId: 'u1', limit: 1, page: 0 })).connections.length, 1)
		assert.equal((await nango.listConnections('none')).connections.length, 0)
		assert.equal((await nango.listConnections({ userId: 'u1', integrationId: ['demo', 'made'], limit: 10 })).connections.length, 1)
		assert.equal((await nango.listConnections({ integrationId: 'made' })).connections.length, 0)
		await nango.patchConnection({ connectionId: 'alice', provider_config_key: 'demo' }, { tags: { Plan: 'gold' } })
		const [row] = (await nango.listConnections({ tags: { plan: 'gold' } })).connections
		assert.equal(row.connection_id, 'alice')
		assert.equal((await nango.waitForConnection('demo', 'u1'))?.connection_id, 'alice')

		const c = await nango.getConnection('demo', 'alice')
		assert.equal(c.credentials.type, 'OAUTH2')
		assert.equal(c.provider_config_key, 'demo')
		assert.equal(c.credentials.refresh_token, undefined)
		assert((await nango.getConnection('demo', 'alice', false, true)).credentials.refresh_token)
		const token = await nango.getToken('demo', 'alice')
		assert.equal(typeof token, 'string')
		assert.notEqual(await nango.getToken('demo', 'alice', true), token, 'it was not renewed')
		assert.equal((await nango.getRawTokenResponse('demo', 'alice')).token_type, 'Bearer')
		await fails(nango.getConnection('demo', 'none'), 404, 'not_found')
		await fails(nango.getConnection('none', 'alice'), 400, 'unknown_provider_config')
		await fails(nango.patchConnection({ connectionId: 'none', provider_config_key: 'demo' }, { tags: {} }), 404, 'not_found')
	},

	async metadata() {
		assert.equal((await nango.setMetadata('demo', 'alice', { a: 1, b: { c: [2] } })).status, 201)
		assert.deepEqual(await nango.getMetadata('demo', 'alice'), { a: 1, b: { c: [2] } })
		assert.equal((await nango.updateMetadata('demo', ['alice'], { a: 2 })).status, 200)
		assert.deepEqual(await nango.getMetadata('demo', 'alice'), { a: 2, b: { c: [2] } })
		await fails(nango.setMetadata('demo', ['alice', 'none'], { a: 3 }), 404, 'unknown_connection')
		assert.deepEqual(await nango.getMetadata('demo', 'alice'), { a: 2, b: { c: [2] } })
	},

	async proxy() {
		const call = { providerConfigKey: 'demo', connectionId: 'alice' }
		const me = await nango.get({ ...call, endpoint: '/me', params: { x: 'a b' } })
		assert.equal(me.data.account, 'ada')
		for (const method of ['post', 'put', 'patch', 'delete']) {
			const { data } = await nango[method]({ ...call, endpoint: '/echo/x', data: { n: 1 }, headers: { 'X-Own': 'mine' } })
			assert.deepEqual({ ...data, headers: undefined }, { ...data, method: method.toUpperCase(), path: '/api/echo/x', headers: undefined })
			assert.equal(data.headers['X-Own']?.[0] ?? data.headers['x-own'], 'mine')
		}
		const retried = await nango.proxy({ ...call, method: 'GET', endpoint: '/me', retries: 2 })
		assert.equal(retried.status, 200)
		await fails(nango.get({ ...call, endpoint: '/me', connectionId: 'none' }), 404, 'unknown_connection')
		await fails(nango.get({ ...call, endpoint: '/me', baseUrlOverride: 'https://evil.example' }), 400, 'base_url_override_disabled')
	},

	async keys() {
		const bad = new Nango({ host, secretKey: '0d9b2c1e-4f3a-4b5c-8d7e-6f5a4b3c2d1e' })
		await fails(bad.listIntegrations(), 401, 'unknown_account')
		const narrow = new Nango({ host, secretKey: NARROW })
		assert.equal((await narrow.get({ providerConfigKey: 'demo', connectionId: 'alice', endpoint: '/me' })).status, 200)
		assert.deepEqual((await narrow.getConnection('demo', 'alice')).credentials, {})
		await fails(narrow.listIntegrations(), 403, 'forbidden')
	},

	async whatIsNotThere() {
		assert.deepEqual(await nango.getEnvironmentVariables(), [])
		for (const call of [
			() => nango.getScriptsConfig(),
			() => nango.listRecords({ providerConfigKey: 'demo', connectionId: 'alice', model: 'M' }),
			() => nango.triggerSync('demo', ['s'], 'alice'),
			() => nango.startSync('demo', ['s'], 'alice'),
			() => nango.pauseSync('demo', ['s'], 'alice'),
			() => nango.syncStatus('demo', '*', 'alice'),
			() => nango.updateSyncConnectionFrequency('demo', 's', 'alice', 'every hour'),
			() => nango.triggerAction('demo', 'alice', 'a', {}),
			() => nango.listFunctions({ uniqueKey: 'demo' }),
		]) {
			await fails(call(), 501, 'not_implemented')
		}
	},

	async removal() {
		assert.equal((await nango.deleteConnection('demo', 'alice')).data.success, true)
		await fails(nango.deleteConnection('demo', 'alice'), 400, 'unknown_connection')
		await fails(nango.getToken('demo', 'alice'), 404, 'not_found')
	},
}

let failed = 0
for (const [name, test] of Object.entries(tests)) {
	try {
		await test()
	} catch (err) {
		failed++
		console.error(`${name}: ${err.stack}`)
	}
}
process.exit(failed ? 1 : 0)
