package connect

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keycaddy/keycaddy/connect/scheme"
)

// fill gives every exported field of a value one of its own, so that whatever is
// added to it later is looked at too.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.UnixMicro(1796130471_619358 + int64(*n)).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(t, v.Field(i), n)
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		fill(t, elem, n)
		v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", *n)).Convert(v.Type().Key()), elem)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.Set(reflect.ValueOf([]byte(fmt.Sprintf(`{"n":%d}`, *n))).Convert(v.Type()))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		t.Fatalf("no value for a %s", v.Kind())
	}
}

func TestWhatIsPackedComesOutWhole(t *testing.T) {
	var (
		c    Connection
		cred scheme.Credential
		n    int
	)
	fill(t, reflect.ValueOf(&c).Elem(), &n)
	fill(t, reflect.ValueOf(&cred).Elem(), &n)
	c.Status = StatusActive // as nothing else is bound
	for name, of := range map[string]struct {
		c    Connection
		cred scheme.Credential
	}{
		"everything": {c, cred},
		"nothing":    {Connection{ID: c.ID, UID: c.UID, Provider: c.Provider, Status: StatusActive}, scheme.Credential{Version: 1}},
	} {
		b, err := Bind(new(scheme.Binding), of.c, of.cred)
		if err != nil {
			t.Fatal(err)
		}
		row, err := b.Connection()
		if err != nil || !reflect.DeepEqual(row, of.c) {
			t.Errorf("%s: %v\n%+v, want\n%+v", name, err, row, of.c)
		}
		got, err := b.credential()
		if err != nil || !reflect.DeepEqual(got, of.cred) {
			t.Errorf("%s: %v: the credential is another one", name, err) // it isn't to be printed
		}
	}
}

// What can't be unpacked is said without a word of what is in it (S51).
func TestWhatCantBeUnpackedIsNotPrinted(t *testing.T) {
	b, err := Bind(new(scheme.Binding), Connection{ID: ID{"a", "b"}}, scheme.Credential{RefreshToken: "canary"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.packed {
		broken := *b
		broken.packed = b.packed[:i]
		if _, err := broken.credential(); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("cut after %d bytes: %v", i, err)
		}
	}
}
