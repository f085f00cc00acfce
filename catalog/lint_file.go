package catalog

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LintFolder checks the provider files of a folder, each by itself: what can't be
// read is a problem of the rule [RuleRead]. It returns the number of files that
// it has seen; the error is about the folder.
func LintFolder(fsys fs.FS) (problems []Problem, files int, err error) {
	own, err := readFolder(fsys)
	for _, e := range own {
		problems = append(problems, Lint(e.provider)...)
	}
	files = len(own)
	var other error
	for _, e := range flatten(err) {
		var fault *ParseError
		if !errors.As(e, &fault) {
			other = errors.Join(other, e)
			continue
		}
		problems = append(problems, Problem{fault.File, fault.Line, RuleRead, fault.Msg})
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	seen := ""
	for _, p := range problems {
		if p.Rule == RuleRead && p.File != seen {
			seen = p.File
			files++
		}
	}
	return problems, files, other
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

// linesOf returns what finds the line of a path such as conn_fields[2].example:
// that of the value, or of the nearest thing around it that is there.
func linesOf(data []byte) func(path string) int {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return func(string) int { return 0 }
	}
	return func(path string) int {
		n := doc.Content[0]
		line := n.Line
		for _, key := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
			if i, err := strconv.Atoi(key); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
				n = n.Content[i]
			} else if c := child(n, key); c != n {
				n = c
			} else {
				break
			}
			line = n.Line
		}
		return line
	}
}
