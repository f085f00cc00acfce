package vault

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for name, tc := range map[string]struct {
		name string
		says string // part of the error; empty: the name is good
	}{
		"one segment":         {name: "a"},
		"all characters":      {name: "AZaz09._~-"},
		"segments":            {name: "connections/git~2fhub/0123456789abcdef"},
		"dots in a segment":   {name: "..a/b../.c/..."},
		"longest":             {name: strings.Repeat("a", MaxName)},
		"too long":            {name: strings.Repeat("a", MaxName+1), says: "513 bytes"},
		"empty":               {name: "", says: "empty"},
		"slash":               {name: "/", says: "empty segment"},
		"absolute":            {name: "/a", says: "empty segment"},
		"ends with a slash":   {name: "a/", says: "empty segment"},
		"empty in the middle": {name: "a//b", says: "empty segment"},
		"parent":              {name: "..", says: `segment ".."`},
		"climbs":              {name: "a/../b", says: `segment ".."`},
		"climbs at the end":   {name: "a/..", says: `segment ".."`},
		"here":                {name: "./a", says: `segment "."`},
		"escaped parent":      {name: "a/%2e%2e/b", says: "character '%'"},
		"backslash":           {name: `a\..\b`, says: `character '\\'`},
		"space":               {name: "a b", says: "character ' '"},
		"NUL":                 {name: "a\x00b", says: "character"},
		"line feed":           {name: "a\nb", says: "character"},
		"query":               {name: "a?version=1", says: "character '?'"},
		"not ASCII":           {name: "ä", says: "character"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckName(tc.name)
			switch {
			case tc.says == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case tc.says != "" && !errors.Is(err, ErrName):
				t.Fatalf("got %v, want ErrName", err)
			case tc.says != "" && !strings.Contains(err.Error(), tc.says):
				t.Fatalf("%q does not say %q", err, tc.says)
			}
		})
	}
}

func TestCheckValue(t *testing.T) {
	if err := CheckValue(make([]byte, MaxValue)); err != nil {
		t.Errorf("MaxValue refused: %v", err)
	}
	if err := CheckValue(make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if err := CheckValue(nil); err != nil {
		t.Errorf("nil refused: %v", err)
	}
}
