package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestOpenKeysMakesFileAndFolderForTheOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "keys.json")
	if _, err := OpenKeys(path, true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	expectNoLeftovers(t, path)
}

func TestOpenKeysRefusesAFileThatOthersCanRead(t *testing.T) {
	k := testKeys(t)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777} {
		if err := os.Chmod(k.path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeys(k.path, true)
		if !errors.Is(err, ErrKeysOpen) || !strings.Contains(err.Error(), "chmod 600 "+k.path) {
			t.Errorf("mode %o: got %v, want ErrKeysOpen telling to chmod", mode, err)
		}
	}
	if err := os.Chmod(k.path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeys(k.path, false); err != nil {
		t.Errorf("mode 400: %v", err)
	}
}

func TestOpenKeysMakesNoNewKeyWhereSecretsExist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	_, err := OpenKeys(path, false)
	if !errors.Is(err, ErrNoKeys) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want ErrNoKeys with the path", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it made something all the same: %v", err)
	}
}

func TestOpenKeysAtOnceGivesEverybodyTheSameKey(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "new", "keys.json")
		var (
			done  sync.WaitGroup
			start = make(chan struct{})
			keys  [8]*Keys
		)
		for n := range keys {
			done.Go(func() {
				<-start
				k, err := OpenKeys(path, true)
				if err != nil {
					t.Error(err)
					return
				}
				keys[n] = k
			})
		}
		close(start)
		done.Wait()
		if t.Failed() {
			return
		}
		b := &table{}
		mustWrite(t, New(b, keys[0]), "a", "value", 0)
		for _, k := range keys {
			// Looked at inside, for a missing key would be read from the file.
			if got, want := k.ring.Load().primary, keys[0].ring.Load().primary; got != want {
				t.Fatalf("one got the key %08x, another %08x", got, want)
			}
			expectValue(t, New(b, k), "a", "value", 1)
		}
		expectNoLeftovers(t, path)
	}
}

func TestOpenKeysRefusesWhatIsNoKeyRingWithoutQuotingIt(t *testing.T) {
	whole, err := os.ReadFile(testKeys(t).path)
	if err != nil {
		t.Fatal(err)
	}
	const canary = "canary+key/bytes=="
	raw := strings.Replace(string(whole), "TINK", "RAW", 1)
	for name, text := range map[string]string{
		"empty":       "",
		"no JSON":     canary,
		"cut":         string(whole[:len(whole)/2]),
		"bad base64":  strings.Replace(string(whole), `"value":"`, `"value":"`+canary, 1),
		"other JSON":  `{"` + canary + `":"` + canary + `"}`,
		"no keys":     `{"primaryKeyId":1,"key":[]}`,
		"raw key":     raw,
		"other type":  strings.Replace(string(whole), "XChaCha20Poly1305Key", "HmacKey", 1),
		"large value": `{"` + strings.Repeat(canary, maxFile/10) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKeys(path, true)
			if !errors.Is(err, ErrKeysBroken) {
				t.Fatalf("got %v, want ErrKeysBroken", err)
			}
			said := strings.ReplaceAll(err.Error(), path, "")
			if strings.Contains(said, canary[:6]) || len(said) > 200 {
				t.Errorf("the error quotes the file: %s", said)
			}
			if after, _ := os.ReadFile(path); string(after) != text {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := OpenKeys(t.TempDir(), true); !errors.Is(err, ErrKeysBroken) && !errors.Is(err, ErrKeysOpen) {
		t.Errorf("a folder: %v", err)
	}
}

func TestRotateByManyAtOnceLosesNoKey(t *testing.T) {
	path := testKeys(t).path
	b := &table{}
	var done sync.WaitGroup
	for n := range 8 {
		done.Go(func() {
			k, err := OpenKeys(path, false)
			if err != nil {
				t.Error(err)
				return
			}
			for {
				err := k.Rotate()
				if err == nil {
					break
				}
				if !errors.Is(err, ErrKeysBusy) {
					t.Error(err)
					return
				}
			}
			mustWrite(t, New(b, k), fmt.Sprint("row", n), "value", 0)
		})
	}
	done.Wait()
	k, err := OpenKeys(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		expectValue(t, New(b, k), fmt.Sprint("row", n), "value", 1)
	}
	if got := len(k.ring.Load().ids); got != 9 {
		t.Errorf("%d keys, want 9", got)
	}
	expectNoLeftovers(t, path)
}

func TestRotateOfABrokenFileChangesNothing(t *testing.T) {
	k := testKeys(t)
	if err := os.WriteFile(k.path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(); !errors.Is(err, ErrKeysBroken) {
		t.Fatalf("got %v, want ErrKeysBroken", err)
	}
	expectNoLeftovers(t, k.path)
	// What was in memory goes on working.
	b := &table{}
	mustWrite(t, New(b, k), "a", "value", 0)
	expectValue(t, New(b, k), "a", "value", 1)
}

func TestVanishedFileDoesNotStopARunningServer(t *testing.T) {
	k := testKeys(t)
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	b := &table{}
	mustWrite(t, New(b, k), "a", "value", 0)
	expectValue(t, New(b, k), "a", "value", 1)
}

func TestKeysPrintAsSecret(t *testing.T) {
	k := testKeys(t)
	v := New(&table{}, k)
	canaries := [][]byte{}
	for _, key := range keyBytes(t, k.path) {
		canaries = append(canaries, key, []byte(hex.EncodeToString(key)), []byte(base64.StdEncoding.EncodeToString(key)), []byte(fmt.Sprint(key)))
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		if got := fmt.Sprintf(verb, k); got != secret {
			t.Errorf("%s prints %q", verb, got)
		}
		// As a field, and behind the vault, too.
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", struct{ K *Keys }{k}, []*Keys{k}, v)
	}
	text, err := json.Marshal(map[string]any{"keys": k, "vault": v, "field": struct{ K *Keys }{k}})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("keys", k), zap.Reflect("reflect", k), zap.Stringer("stringer", k), zap.Any("vault", v))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "keys", k, "vault", v)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "keys", k, "vault", v)
	for _, canary := range canaries {
		if bytes.Contains(out.Bytes(), canary) {
			t.Fatalf("a key was printed:\n%s", out.Bytes())
		}
	}
	if n := bytes.Count(out.Bytes(), []byte(secret)); n < 7 {
		t.Errorf("only %d times [secret] in\n%s", n, out.Bytes())
	}
}

// keyBytes returns the key material in a key ring file.
func keyBytes(t *testing.T, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Key []struct{ KeyData struct{ Value []byte } }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var keys [][]byte
	for _, key := range file.Key {
		p := key.KeyData.Value // a protobuf message that ends with the 32 bytes of the key
		keys = append(keys, p[len(p)-32:])
	}
	if len(keys) == 0 {
		t.Fatal("no keys in " + path)
	}
	return keys
}

// expectNoLeftovers makes sure that the key ring is alone in its folder: a
// forgotten temporary file would be a second copy of the keys.
func expectNoLeftovers(t *testing.T, path string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("files left over: %v", files)
	}
}
