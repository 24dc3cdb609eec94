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

// access leaves the plugin a way to ask the API server while the agent is away. A token of the agent's own ends with its pod; one of
// the plugin's does not. Only root can read it.
func (k *Keeper) access() error {
	if k.conf.APIServer == "" {
		return nil
	}
	var ca []byte
	var err error
	if k.conf.CAFile != "" {
		if ca, err = os.ReadFile(k.conf.CAFile); err != nil {
			return fmt.Errorf("root certificates of the API server: %w", err)
		}
	}
	token, err := k.token()
	if err != nil {
		return err
	}
	want, err := json.Marshal(cniplugin.NewAccess(k.conf.APIServer, ca, token))
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

// token is the plugin's own, or else the agent's.
func (k *Keeper) token() (string, error) {
	if k.conf.Token != nil {
		if t := k.conf.Token(); t != "" {
			return t, nil
		}
	}
	if k.conf.TokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(k.conf.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token for the API server: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Left is the token that an earlier agent left for the plugin, "" if there is none that can be read.
func (k *Keeper) Left() string {
	d, err := openDir(k.conf.AgentRunDir)
	if err != nil {
		return ""
	}
	defer d.Close()
	b, mode, err := d.read(cniplugin.Kubeconfig)
	var a cniplugin.Access
	if err != nil || mode != 0o600 || json.Unmarshal(b, &a) != nil || len(a.Users) != 1 {
		return ""
	}
	return a.Users[0].User.Token
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
