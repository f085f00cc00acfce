package scheme

import "context"

// none is for APIs that need no credential; the connection only says whose
// calls these are.
type none struct{ base }

// Accept takes the answers as they are.
func (s none) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

var _ Prompter = none{}
