package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// timeout of a call to the agent, Istio's.
const timeout = 5 * time.Second

// Main answers one CNI command, from environment and standard input to standard output, and exits.
func Main(about string) {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check}, version.All, about)
}

// Event is what the agent is told of a new pod, Istio's wire and the pod's UID.
type Event struct {
	Netns        string
	PodName      string
	PodNamespace string
	PodUID       string `json:",omitempty"`
	IPs          []IPConfig
}

// IPConfig is one address of a pod.
type IPConfig struct {
	Interface *int      `json:",omitempty"`
	Address   IPAddress `json:"Address"`
	Gateway   string    `json:",omitempty"`
}

// IPAddress is an address and its mask.
type IPAddress struct {
	IP   string
	Mask []byte
}

// add tells the agent and passes the result before on. The agent decides whether the pod is of the mesh. When it cannot be
// asked, only a pod that is surely outside the mesh starts; the others fail the command, and the runtime tries again: no pod of
// the mesh ever starts uncaptured.
func add(args *skel.CmdArgs) error {
	c, prev, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if prev == nil {
		return fmt.Errorf("this plugin must come after others: there is no result before it")
	}
	p := parseArgs(args.Args)
	if c.AmbientEnabled && p.name != "" && p.namespace != "" && !c.excludes(p.namespace) && p.namespace != c.PodNamespace {
		body, err := json.Marshal(event(args.Netns, p, prev))
		if err != nil {
			return fmt.Errorf("tell the node agent: %w", err)
		}
		l := newLogger(c)
		err = admit(c, p, body, l)
		l.close()
		if err != nil {
			return err
		}
	}
	return types.PrintResult(prev, c.CNIVersion)
}

// How long one call waits for an agent that is away, as while it is replaced: a runtime that is told no asks again only
// after 10 s or more. With EnableDetectionRetry it is Istio's 30 s. The API server is asked less often than the agent.
const (
	awaited          = 10 * time.Second
	awaitedDetection = 30 * time.Second
	agentPause       = 100 * time.Millisecond
	judgePause       = time.Second
)

// admit returns nil when the pod may start.
func admit(c *Conf, p pod, body []byte, l *logger) error {
	wait := awaited
	switch {
	case c.AgentWait != nil:
		wait = time.Duration(*c.AgentWait) * time.Second
	case c.EnableDetectionRetry:
		wait = awaitedDetection
	}
	var judged time.Time
	var why error
	for end := time.Now().Add(wait); ; time.Sleep(agentPause) {
		err := post(filepath.Join(c.RunDir, EventSocket), "/cmdadd", body, time.Now().Add(timeout))
		if err == nil {
			l.log("debug", "pod may start", "pod", p.String())
			return nil
		}
		var refused *refusal
		final := errors.As(err, &refused)
		if !final && time.Since(judged) > judgePause {
			var outside string
			if outside, why = surelyOutside(c, p); why == nil {
				l.log("warn", "pod outside the mesh starts without the node agent", "pod", p.String(), "why", outside, "error", err.Error())
				return nil
			}
			if judged.IsZero() {
				l.log("warn", "pod waits for the node agent", "pod", p.String(), "error", err.Error(), "why", why.Error())
			}
			judged = time.Now()
		}
		err = fmt.Errorf("pod %s waits for the mesh's node agent: %w", p, err)
		if !final {
			err = fmt.Errorf("%w; %w", err, why)
		}
		if final || !time.Now().Before(end) {
			l.log("error", "pod must wait", "pod", p.String(), "error", err.Error())
			return err
		}
	}
}

// surelyOutside asks the API server, and gives why a pod is outside the mesh, or else why it must wait.
func surelyOutside(c *Conf, p pod) (string, error) {
	verdict, err := judge(c, p, time.Now().Add(timeout))
	switch {
	case err != nil:
		return "", fmt.Errorf("whether the pod is of the mesh is not known: %w", err)
	case verdict.In:
		return "", fmt.Errorf("it is of the mesh: %s", verdict.Why)
	}
	return verdict.Why, nil
}

func event(netns string, p pod, prev *current.Result) Event {
	e := Event{Netns: netns, PodName: p.name, PodNamespace: p.namespace, PodUID: p.uid}
	for _, ip := range prev.IPs {
		i := IPConfig{Interface: ip.Interface, Address: IPAddress{IP: ip.Address.IP.String(), Mask: ip.Address.Mask}}
		if ip.Gateway != nil {
			i.Gateway = ip.Gateway.String()
		}
		e.IPs = append(e.IPs, i)
	}
	return e
}

// del has nothing to undo: the rules go with the pod's namespace, and the agent sees the pod go. Not even a configuration
// that cannot be read may keep a pod from ending.
func del(*skel.CmdArgs) error { return nil }

// check agrees with any configuration that it can read.
func check(args *skel.CmdArgs) error {
	_, _, err := parseConf(args.StdinData)
	return err
}
