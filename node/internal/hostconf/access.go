package hostconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ambit-mesh/ambit/node/cniplugin"
)

// access leaves the plugin a way to ask the API server while the agent is away. The token is the agent's own and ends with its
// pod; only root can read it, and root of a node has it anyway.
func (k *Keeper) access() error {
	if k.conf.APIServer == "" {
		return nil
	}
	var ca, token []byte
	var err error
	if k.conf.CAFile != "" {
		if ca, err = os.ReadFile(k.conf.CAFile); err != nil {
			return fmt.Errorf("root certificates of the API server: %w", err)
		}
	}
	if k.conf.TokenFile != "" {
		if token, err = os.ReadFile(k.conf.TokenFile); err != nil {
			return fmt.Errorf("token for the API server: %w", err)
		}
	}
	want, err := json.Marshal(cniplugin.NewAccess(k.conf.APIServer, ca, strings.TrimSpace(string(token))))
	if err != nil {
		return err
	}
	d, err := openDir(k.conf.AgentRunDir)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.same(cniplugin.Kubeconfig, want, 0o600) {
		return nil
	}
	return d.replace(cniplugin.Kubeconfig, bytes.NewReader(want), 0o600)
}

// forget removes what is for the plugin beside its configuration.
func (k *Keeper) forget() error {
	d, err := openDir(k.conf.AgentRunDir)
	if err != nil {
		return err
	}
	defer d.Close()
	return errors.Join(d.gone(cniplugin.Kubeconfig), d.gone(cniplugin.LogFile), d.gone(cniplugin.LogFile+".1"))
}
