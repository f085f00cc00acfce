package scheme

import "context"

// apiKey is a key that the end user has made at the provider and enters. Where
// it goes, a header or the query, is the entry's own say.
type apiKey struct{ base }

// Accept takes the answers as they are.
func (s apiKey) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

var _ Prompter = apiKey{}
