package openapi

import "testing"

func TestDocumentLoads(t *testing.T) {
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for name := range d.operations {
		t.Log(name)
	}
}
