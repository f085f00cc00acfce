package catalog

// Authorize is the browser leg of OAuth. Always added besides Params:
// response_type=code (unless given or omitted), client_id, redirect_uri, scope
// and state.
type Authorize struct {
	URL URL `yaml:"url"`

	// PKCE: an S256 challenge may be sent. When it is false the vendor breaks if
	// one is sent. True is no proof that the vendor enforces it.
	PKCE   bool   `yaml:"pkce"`
	Params Params `yaml:"params"`

	RenameParams    map[string]string `yaml:"rename_params"` // standard name to vendor name
	OmitParams      []string          `yaml:"omit_params"`
	OmitEmptyParams bool              `yaml:"omit_empty_params"`
	FragmentPath    string            `yaml:"fragment_path"` // the query goes behind #<path>
	RawScope        bool              `yaml:"raw_scope"`     // scope is appended without encoding

	CodeParam        string `yaml:"code_param"` // callback parameter with the code; default: code
	CodeIsURLEncoded bool   `yaml:"code_is_url_encoded"`
	StateParam       string `yaml:"state_param"` // default: state

	// Issuer is the server's issuer identifier. Where the callback brings iss
	// (RFC 9207), it has to be this, byte for byte; it has to bring it where
	// IssuerSent is true.
	Issuer     Value `yaml:"issuer"`
	IssuerSent bool  `yaml:"issuer_sent"`

	CaptureCallbackParams map[string]string `yaml:"capture_callback_params"` // connection field to callback parameter

	Mode                string            `yaml:"mode" enum:"vendor_install"`
	CodeWebhookPath     string            `yaml:"code_webhook_path"`
	CaptureWebhookPaths map[string]string `yaml:"capture_webhook_paths"`

	RequestTokenURL    URL    `yaml:"request_token_url"` // first leg of OAuth 1
	RequestTokenParams Params `yaml:"request_token_params"`
}

// Token is the request that yields the access token. Implied parameters:
// grant_type, code, redirect_uri and code_verifier.
type Token struct {
	URL    URL    `yaml:"url"`
	Method string `yaml:"method" enum:"GET POST" default:"POST"`

	// Body is how the parameters travel; query puts them in the URL.
	Body string `yaml:"body" enum:"form json query xml none" default:"form"`

	// ClientAuth is how the client proves itself: post (client_id and
	// client_secret in the body), basic (a Basic header), private_key_jwt (the
	// assertion of the signed block) or none.
	ClientAuth string  `yaml:"client_auth" enum:"post basic none private_key_jwt" default:"post"`
	Params     Params  `yaml:"params"`
	Headers    Headers `yaml:"headers"`

	ClientAuthNames map[string]string `yaml:"client_auth_names"` // client_id and client_secret to vendor names
	CodeName        string            `yaml:"code_name"`
	BasicUser       Value             `yaml:"basic_user"` // Basic with other values than client id and secret
	BasicPassword   Value             `yaml:"basic_password"`

	NoGrantType         bool `yaml:"no_grant_type"`
	NoRedirectURI       bool `yaml:"no_redirect_uri"`
	RedirectURIInQuery  bool `yaml:"redirect_uri_in_query"`
	NoClientID          bool `yaml:"no_client_id"`
	NoCode              bool `yaml:"no_code"`
	SendsScope          bool `yaml:"sends_scope"`
	ExtraClientIDInBody bool `yaml:"extra_client_id_in_body"`
	MTLS                bool `yaml:"mtls"` // cred.client_certificate and cred.client_private_key, PEM
}

// TokenStep is one more request after the token request. The answer of the last
// step is the token response.
type TokenStep struct {
	Method   string  `yaml:"method,required" enum:"GET POST"`
	URL      URL     `yaml:"url,required"`
	Params   Params  `yaml:"params"`
	Query    Params  `yaml:"query"`
	Headers  Headers `yaml:"headers"`
	Body     string  `yaml:"body" enum:"form json query xml none" default:"none"`
	Optional bool    `yaml:"optional"` // keep the earlier answer when this step fails
}

// TokenAlt is a second token next to the main one.
type TokenAlt struct {
	URL         URL     `yaml:"url,required"`
	Method      string  `yaml:"method" enum:"GET POST" default:"POST"`
	Body        string  `yaml:"body" enum:"form json query xml none" default:"form"`
	ClientAuth  string  `yaml:"client_auth" enum:"post basic none private_key_jwt" default:"post"`
	Params      Params  `yaml:"params"`
	Headers     Headers `yaml:"headers"`
	AccessToken string  `yaml:"access_token"`
	ExpiresAt   string  `yaml:"expires_at"`
}

// Ways to renew a token, [Refresh.Mode].
const (
	RefreshByToken         = "refresh_token"
	RefreshReissue         = "reissue"               // repeat the token request
	RefreshExchangesAccess = "exchange_access_token" // trade the access token for a new one
	RefreshNone            = "none"
)

// Refresh says how a token is renewed. Mode is always set: refresh_token where
// the file says nothing, reissue for client credentials. URL, Params, Headers,
// Body, Method, ClientAuth and ClientAuthNames override those of the token block
// when they are set.
type Refresh struct {
	Mode     string `yaml:"mode" enum:"refresh_token reissue exchange_access_token none"`
	Declared bool   `yaml:"declared"` // the vendor is known to issue refresh tokens

	URL             URL               `yaml:"url"`
	Method          string            `yaml:"method" enum:"GET POST"`
	Params          Params            `yaml:"params"`
	Headers         Headers           `yaml:"headers"`
	Body            string            `yaml:"body" enum:"form json query xml none"`
	ClientAuth      string            `yaml:"client_auth" enum:"post basic none private_key_jwt"`
	ClientAuthNames map[string]string `yaml:"client_auth_names"`
	NoGrantType     bool              `yaml:"no_grant_type"`

	Rotates          bool `yaml:"rotates" default:"true"` // false: keep the old refresh token
	KeepsAccessToken bool `yaml:"keeps_access_token"`     // the call only extends the lifetime
	LifetimeS        int  `yaml:"lifetime_s"`
	EachRoot         bool `yaml:"each_root"` // every root of the token response is refreshed on its own
	StepsToo         bool `yaml:"steps_too"` // token_steps are repeated as well
}

// TokenResponse says where things are in the token response. An empty path
// means the default: access_token, refresh_token, expires_in, expires_at.
type TokenResponse struct {
	AccessToken      string            `yaml:"access_token"` // $body: the whole body is the token
	RefreshToken     string            `yaml:"refresh_token"`
	ExpiresIn        string            `yaml:"expires_in"`
	ExpiresAt        string            `yaml:"expires_at"`
	ExpiresInUnit    string            `yaml:"expires_in_unit" enum:"ms"`
	LifetimeS        int               `yaml:"lifetime_s"` // fixed, in seconds
	NoExpiryGiven    bool              `yaml:"no_expiry_given"`
	RefreshExpiresIn string            `yaml:"refresh_expires_in"`
	RefreshExpiresAt string            `yaml:"refresh_expires_at"`
	RefreshMarginS   int               `yaml:"refresh_margin_s"` // renew this long before the end
	AlternateRoot    string            `yaml:"alternate_root"`   // look here when AccessToken is empty
	Expires          string            `yaml:"expires" enum:"min_of_roots"`
	Capture          map[string]string `yaml:"capture"` // connection field to response path
	CaptureOnRefresh map[string]string `yaml:"capture_on_refresh"`
	CaptureCookies   bool              `yaml:"capture_cookies"`
	OK               *Condition        `yaml:"ok"` // for vendors that answer 200 with an error inside
}

// Condition holds when the value at Path equals Equals (string, bool, int or
// float64). On refresh it is asked of refresh answers only, else of all.
type Condition struct {
	Path   string `yaml:"path,required"`
	Equals any    `yaml:"equals,required"`
	On     string `yaml:"on" enum:"refresh"`
}

// Call is an extra request of the flow: a revocation, or a look-up after login.
// Its URL may be relative to request.base_url ([URL.Under]).
type Call struct {
	Method  string  `yaml:"method,required"`
	URL     URL     `yaml:"url,required" url:"relative"`
	Headers Headers `yaml:"headers"`
	Params  Params  `yaml:"params"`
	Body    Body    `yaml:"body"`

	// Auth is bearer (the access token), none, or empty: like a normal call.
	Auth string `yaml:"auth" enum:"none bearer"`
}

// Body is either a tree of its own, sent as JSON, or the word that says how the
// parameters travel: form, json, query, xml or none. Encoding is json for a tree.
type Body struct {
	Encoding string
	Tree     Params
}

// Introspect asks whether a token is active and when it ends.
type Introspect struct {
	Method    string `yaml:"method" enum:"GET POST" default:"POST"`
	URL       URL    `yaml:"url,required"`
	Body      string `yaml:"body" enum:"form json query xml none" default:"form"`
	Params    Params `yaml:"params"`
	Active    string `yaml:"active"`
	ExpiresAt string `yaml:"expires_at"`
}

// Registration is how an MCP client gets its client id. Params are literal.
type Registration struct {
	Mode   string         `yaml:"mode,required" enum:"rfc7591 manual cimd discovery"`
	URL    URL            `yaml:"url"`
	Params map[string]any `yaml:"params"`
}

// Signed is a self-signed assertion. Claims gain iat and exp. A claim or header
// that does not resolve is left out.
type Signed struct {
	Kind        string `yaml:"kind,required" enum:"jwt client_assertion saml2_bearer"`
	Alg         string `yaml:"alg,required" enum:"RS256 ES256 HS256 PS256 rsa-sha256"`
	Key         Value  `yaml:"key,required"`
	KeyEncoding string `yaml:"key_encoding" enum:"hex utf8"`
	KeyFormat   string `yaml:"key_format" enum:"jwk"`
	LifetimeS   int    `yaml:"lifetime_s,required"`
	Header      Params `yaml:"header"`
	Claims      Params `yaml:"claims" lists:"plain"`
	SingleUse   bool   `yaml:"single_use"`
	Split       *Split `yaml:"split"`

	Issuer       Value  `yaml:"issuer"` // SAML from here on
	Audience     Value  `yaml:"audience"`
	Recipient    Value  `yaml:"recipient"`
	NameID       Value  `yaml:"name_id"`
	SessionIndex Value  `yaml:"session_index"`
	Attributes   Params `yaml:"attributes"`
}

// Split cuts one credential field into several: on id:secret for instance. The
// names in Into can be referred to as cred.<name>.
type Split struct {
	Field string   `yaml:"field,required"`
	On    string   `yaml:"on,required"`
	Into  []string `yaml:"into,required"`
}

// SignRequest is a signature over each outgoing request.
type SignRequest struct {
	Kind            string `yaml:"kind,required" enum:"aws_sigv4 oauth1 wsse_username_token"`
	AccessKeyID     Value  `yaml:"access_key_id"`
	SecretAccessKey Value  `yaml:"secret_access_key"`
	Region          Value  `yaml:"region"`
	Service         Value  `yaml:"service"`
	Host            Value  `yaml:"host"`
	Credentials     string `yaml:"credentials" enum:"assume_role"`
	RoleARN         Value  `yaml:"role_arn"`
	SignatureMethod string `yaml:"signature_method" enum:"HMAC-SHA1 HMAC-SHA256 PLAINTEXT"`
	Realm           Value  `yaml:"realm"`
	Token           Value  `yaml:"token"`
	TokenSecret     Value  `yaml:"token_secret"`
	Username        Value  `yaml:"username"`
	Password        Value  `yaml:"password"`
	Header          string `yaml:"header"`
}
