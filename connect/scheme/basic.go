package scheme

import "context"

// basic is a user name and a password (RFC 7617), or what vendors put in their
// place, as the entry's header template says.
type basic struct{ base }

// Accept takes the answers as they are.
func (s basic) Accept(_ context.Context, answers map[string]string) (Grant, error) {
	return s.accept(answers)
}

var _ Prompter = basic{}
