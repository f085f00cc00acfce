// Package catalog says which providers exist and how each of them is spoken to.
//
// A provider is one YAML file: where the browser goes, where the token comes
// from, which values a person is asked for, and what is added to each request.
// The files shipped with the program are providers/<x>/<id>.yaml, where <x> is
// the first letter of the id, or 0-9; an operator may lay a folder of own files
// over them, however it is arranged ([Load]). Files are read strictly: a key, a
// template or a word that is not known is an error with file and line, because
// an entry that is half understood sends credentials to the wrong place.
//
// Strings that are sent somewhere are templates ([Value], [URL], [Params]). A
// template is checked when its file is read and filled from an [Env] when a
// request is made. Three promises hold whatever the values are: a reference
// never moves a URL to a host or path the template did not mean ([URL]), a
// header value never has a line break ([Headers]), and no error text contains
// a value.
//
// The package knows nothing about HTTP, storage or Caddy. It may import the
// standard library and the YAML library, and no other package of this module.
package catalog
