package catalog

// Request is what the proxy does to each request. There are no hidden headers:
// a Bearer or Basic header is always spelled out.
type Request struct {
	// BaseURL is joined to the client's path with exactly one slash.
	BaseURL URL `yaml:"base_url,required"`

	// Headers, Query and Body: an entry that does not resolve is left out.
	Headers Headers `yaml:"headers"`
	Query   Params  `yaml:"query"`
	Body    Params  `yaml:"body"` // merged into JSON and form bodies of POST, PUT, PATCH

	// ExpiredStatuses are those by which the vendor says, besides 401, that the
	// access token has ended: the call is answered by a renewal and a replay.
	ExpiredStatuses []int `yaml:"expired_statuses"`

	// Expired are answers that say the same in another place: in the body or in
	// a header.
	Expired []Signal `yaml:"expired"`

	Decompress            bool `yaml:"decompress"`
	KeepHeadersOnRedirect bool `yaml:"keep_headers_on_redirect"`
}

// Signal is an answer by which the vendor says that the access token has ended:
// one with the status, where the JSON body has Equals at Path, or the header has
// Contains in it. Bodies of up to 16 KiB are looked into; of answers that say
// that all is well, only those whose length is told.
type Signal struct {
	Status   int    `yaml:"status,required"`
	Path     string `yaml:"path"`
	Equals   string `yaml:"equals"`
	Header   string `yaml:"header"`
	Contains string `yaml:"contains"`
}

// Verify is a cheap request that proves the credential works.
type Verify struct {
	Method  string  `yaml:"method" enum:"GET POST PROPFIND" default:"GET"`
	BaseURL URL     `yaml:"base_url"`                      // default: request.base_url
	Paths   []URL   `yaml:"paths,required" url:"relative"` // one that succeeds is enough
	Headers Headers `yaml:"headers"`
	Body    Params  `yaml:"body" lists:"plain"`

	BodyRaw     Value   `yaml:"body_raw"`
	BodySpecial string  `yaml:"body_special" enum:"soap"`
	Expect      *Expect `yaml:"expect"` // default: any 2xx
	SignService string  `yaml:"sign_service"`
	Assumed     bool    `yaml:"assumed"` // not confirmed by the vendor
}

// Expect is what a good answer to [Verify] looks like.
type Expect struct {
	Status []int  `yaml:"status"`
	Path   string `yaml:"path"`
	Equals any    `yaml:"equals"`
	Is     string `yaml:"is" enum:"array"`

	// NotContains is a path and a text; the path $text is the raw body.
	NotContains []string `yaml:"not_contains"`
}

// Retry says how the vendor tells that it is being asked too often.
type Retry struct {
	AfterHeaders    []string      `yaml:"after_headers"`    // seconds from now
	AtHeaders       []string      `yaml:"at_headers"`       // epoch seconds or milliseconds, or a date
	RemainingHeader string        `yaml:"remaining_header"` // 0: limited
	Statuses        []StatusRange `yaml:"statuses"`         // default: see Limited
	BodyHint        *BodyHint     `yaml:"body_hint"`
}

// Limited reports whether a status is one that a caller may try again. Where the
// entry names none these are 429, 401 and 5xx; the receiver may be nil.
func (r *Retry) Limited(status int) bool {
	if r == nil || len(r.Statuses) == 0 {
		return status == 429 || status == 401 || status >= 500 && status <= 599
	}
	for _, s := range r.Statuses {
		if s.From <= status && status <= s.To {
			return true
		}
	}
	return false
}

// StatusRange is written 403, 5xx or 500-502.
type StatusRange struct{ From, To int }

// BodyHint finds the time to wait in the body; the first group of Regexp is it.
type BodyHint struct {
	Path   string  `yaml:"path,required"`
	Regexp *Regexp `yaml:"regex,required"`
	Kind   string  `yaml:"kind,required" enum:"at after"`
}

// Paginate tells clients how the vendor's lists go on. The proxy does not page.
type Paginate struct {
	Kind        string `yaml:"kind,required" enum:"cursor link offset"`
	CursorParam string `yaml:"cursor_param"`
	CursorPath  string `yaml:"cursor_path"`
	LimitParam  string `yaml:"limit_param"`
	LinkRel     string `yaml:"link_rel"`
	LinkPath    string `yaml:"link_path"`
	OffsetParam string `yaml:"offset_param"`
	OffsetStart int    `yaml:"offset_start"`
	OffsetStep  string `yaml:"offset_step"`
	ItemsPath   string `yaml:"items_path"`
}

// Derive is a look-up that fills connection fields after the first token. It has
// one source: Request, FromTokenResponse, JWTClaim with Of, or Copy.
type Derive struct {
	Request           *Call  `yaml:"request"`
	FromTokenResponse bool   `yaml:"from_token_response"`
	JWTClaim          string `yaml:"jwt_claim"`
	Of                string `yaml:"of"`
	Copy              Value  `yaml:"copy"`

	Pick       *Pick             `yaml:"pick"` // one element of a list
	Set        map[string]string `yaml:"set"`  // connection field to path
	SetSuccess string            `yaml:"set_success"`
	To         string            `yaml:"to"`

	// Transform is last_path_segment or after:<marker>.
	Transform string `yaml:"transform"`
	When      *When  `yaml:"when"`
	Optional  bool   `yaml:"optional"`
	UnlessSet bool   `yaml:"unless_set"`

	ExtraToken  string `yaml:"extra_token"` // keeps a second token under this name
	Path        string `yaml:"path"`
	RefreshPath string `yaml:"refresh_path"`
	ExpiresIn   string `yaml:"expires_in"`
	EachRefresh bool   `yaml:"each_refresh"`

	Unknown bool `yaml:"unknown"` // a look-up exists, but its facts are not known
	Assumed bool `yaml:"assumed"`
}

// Pick chooses one element of the list at Array (empty: the whole answer): the
// first that a Match accepts, else Default.
type Pick struct {
	Array   string  `yaml:"array"`
	Default string  `yaml:"default" enum:"first only"`
	Match   []Match `yaml:"match"`
}

// Match compares what is at Path. The strings are templates, as the conditions
// name connection fields.
type Match struct {
	Path            string `yaml:"path,required"`
	Equals          *Param `yaml:"equals"`
	Contains        Value  `yaml:"contains"`
	HostLabelEquals Value  `yaml:"host_label_equals"`
}

// When limits a look-up to some connections.
type When struct {
	ScopesHave  string `yaml:"scopes_have"`
	ScopesLack  string `yaml:"scopes_lack"`
	PathEquals  []any  `yaml:"path_equals"`  // path, value
	ArrayLength []any  `yaml:"array_length"` // path, number
}
