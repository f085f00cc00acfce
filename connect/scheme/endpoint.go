package scheme

// TokenHost is the host whose token endpoint renews the grant, or "" if the
// scheme asks none. What is sent there is paced for all connections together.
func (b base) TokenHost(g Grant) string {
	p := b.provider
	if p.Token == nil {
		return ""
	}
	at := p.Token.URL
	if p.Refresh != nil && !p.Refresh.URL.IsZero() {
		at = p.Refresh.URL
	}
	u, err := at.Fill(b.env(g, nil))
	if err != nil {
		return ""
	}
	return u.Host
}
