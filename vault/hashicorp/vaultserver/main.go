// Command vaultserver is a real HashiCorp Vault for keycaddy's tests: Vault's
// own core behind Vault's own HTTP API, with just the engines that the tests
// need. It is a module of its own, so that keycaddy doesn't depend on Vault's
// core, and is built by build.sh.
//
// It starts as any Vault does, uninitialised or sealed; tests initialise and
// unseal it through the API. Its data are in memory, or in a folder that survives
// a restart. It listens on loopback only, prints its address as one line, logs to
// standard error, and ends when its standard input does, so that no server
// outlives the test that started it.
//
// It is started in one of two ways, the second of which is that of Vault's own
// command, so that either can be given to what starts one:
//
//	vaultserver [-listen <address>] [-storage <folder>]
//	vaultserver server -config=<file>
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	authkubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	secretskv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "loopback `address` to listen on")
	folder := flag.String("storage", "", "`folder` that keeps the data; none: in memory")
	flag.Parse()
	if flag.Arg(0) == "server" {
		var err error
		if *address, *folder, err = configured(flag.Args()[1:]); err != nil {
			log.Fatal(err)
		}
	} else if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*address, *folder); err != nil {
		log.Fatal(err)
	}
}

// configured reads what `vault server` is told, as far as this server knows it:
// a file in JSON with storage of type file and one listener without TLS.
func configured(args []string) (address, folder string, err error) {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	file := flags.String("config", "", "configuration `file` (JSON)")
	flags.Parse(args)
	data, err := os.ReadFile(*file)
	if err != nil {
		return "", "", err
	}
	var c struct {
		Storage  struct{ File struct{ Path string } }
		Listener struct {
			TCP struct {
				Address    string
				TLSDisable bool `json:"tls_disable"`
			}
		}
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return "", "", fmt.Errorf("reading %s: %w", *file, err)
	}
	if c.Storage.File.Path == "" || c.Listener.TCP.Address == "" || !c.Listener.TCP.TLSDisable {
		return "", "", errors.New("only storage.file.path and listener.tcp with an address and tls_disable are known here")
	}
	return c.Listener.TCP.Address, c.Storage.File.Path, nil
}

func serve(address, folder string) error {
	listener, err := listen(address)
	if err != nil {
		return err
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	var backend physical.Backend
	if folder != "" {
		backend, err = file.NewFileBackend(map[string]string{"path": folder}, logger)
	} else {
		backend, err = inmem.NewInmem(nil, logger)
	}
	if err != nil {
		return fmt.Errorf("opening storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           backend,
		Logger:             logger,
		BuiltinRegistry:    engines,
		LogicalBackends:    engines[consts.PluginTypeSecrets],
		CredentialBackends: engines[consts.PluginTypeCredential],
		DisableMlock:       true,
	})
	if err != nil {
		return fmt.Errorf("making core: %w", err)
	}
	server := &http.Server{
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: new(configutil.Listener)}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return core.Shutdown()
}

func listen(address string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", address)
	}
	return net.ListenTCP("tcp", tcp)
}

// catalog is what Vault finds when it looks for built-in plugins.
type catalog map[consts.PluginType]map[string]logical.Factory

var engines = catalog{
	consts.PluginTypeSecrets:    {"kv": secretskv.Factory, "transit": transit.Factory},
	consts.PluginTypeCredential: {"approle": approle.Factory, "kubernetes": authkubernetes.Factory},
}

func (c catalog) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, ok := c[kind][name]
	return func() (any, error) {
		return logical.Factory(func(ctx context.Context, config *logical.BackendConfig) (logical.Backend, error) {
			return factory(ctx, config)
		}), nil
	}, ok
}

func (c catalog) Contains(name string, kind consts.PluginType) bool {
	_, ok := c[kind][name]
	return ok
}

func (c catalog) Keys(kind consts.PluginType) []string { return slices.Sorted(maps.Keys(c[kind])) }

func (c catalog) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, c.Contains(name, kind)
}

func (c catalog) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
