// Package ptp is the local cluster's primary CNI plugin: it joins a pod to its node by a pair of interfaces.
//
// It runs in the node's network namespace. The runtime gives the addresses (capability "ips"), as it hands them out.
package ptp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// Name is the plugin's name and the name (argument 0) that the binary is run by.
const Name = "ambit-ptp"

// conf is the plugin's part of the network configuration.
type conf struct {
	types.PluginConf
	RuntimeConfig struct {
		IPs []string `json:"ips"`
	} `json:"runtimeConfig"`
}

// Main answers one CNI command, from environment and standard input to standard output, as the specification says.
func Main() error {
	return failed(skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: add, Del: del, Check: check}, version.All, "ambit point-to-point plugin"))
}

// failed keeps a nil *types.Error from becoming an error that is not nil.
func failed(e *types.Error) error {
	if e == nil {
		return nil
	}
	return errors.Join(e, e.Print())
}

func add(args *skel.CmdArgs) error {
	c := conf{}
	if err := json.Unmarshal(args.StdinData, &c); err != nil {
		return fmt.Errorf("read the network configuration: %w", err)
	}
	addrs, err := parse(c.RuntimeConfig.IPs)
	if err != nil {
		return err
	}
	pod, err := netns.Open(args.Netns)
	if err != nil {
		return err
	}
	defer pod.Close()
	host := hostName(args.ContainerID)
	if err := connect(pod, args.IfName, host, addrs); err != nil {
		return errors.Join(err, link.Delete(nil, host))
	}
	r, err := result(pod, c.CNIVersion, args, host, addrs)
	if err != nil {
		return errors.Join(err, link.Delete(nil, host))
	}
	return types.PrintResult(r, c.CNIVersion)
}

// connect makes the pair and routes both ways: the node to this pod, the pod to everything by the node.
func connect(pod *netns.Namespace, name, host string, addrs []netip.Prefix) error {
	if err := link.AddVeth(link.Veth{Name: host, Peer: name, PeerNS: pod}); err != nil {
		return err
	}
	if err := link.Up(nil, host); err != nil {
		return err
	}
	if err := link.SetSysctl(pod, "ipv4/conf/all/rp_filter", "0"); err != nil {
		return err
	}
	if err := link.Up(pod, "lo"); err != nil {
		return err
	}
	if err := link.Up(pod, name); err != nil {
		return err
	}
	for _, a := range addrs {
		gw := gateway(a)
		alone := netip.PrefixFrom(gw, gw.BitLen())
		own := netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
		if err := link.AddAddr(nil, host, alone); err != nil {
			return err
		}
		if err := link.AddRoute(nil, link.Route{To: own, Link: host}); err != nil {
			return err
		}
		if err := link.AddAddr(pod, name, own); err != nil {
			return err
		}
		if err := link.AddRoute(pod, link.Route{To: alone, Link: name, From: a.Addr()}); err != nil {
			return err
		}
		if err := link.AddRoute(pod, link.Route{To: everything(gw), Via: gw, Link: name}); err != nil {
			return err
		}
	}
	return nil
}

func result(pod *netns.Namespace, v string, args *skel.CmdArgs, host string, addrs []netip.Prefix) (*current.Result, error) {
	outer, err := link.HardwareAddr(nil, host)
	if err != nil {
		return nil, err
	}
	inner, err := link.HardwareAddr(pod, args.IfName)
	if err != nil {
		return nil, err
	}
	r := &current.Result{CNIVersion: v, Interfaces: []*current.Interface{
		{Name: host, Mac: outer.String()},
		{Name: args.IfName, Mac: inner.String(), Sandbox: args.Netns},
	}}
	for _, a := range addrs {
		gw := gateway(a)
		r.IPs = append(r.IPs, &current.IPConfig{Interface: new(1), Address: ipNet(a), Gateway: gw.AsSlice()})
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(everything(gw)), GW: gw.AsSlice()})
	}
	return r, nil
}

func del(args *skel.CmdArgs) error { return link.Delete(nil, hostName(args.ContainerID)) }

func check(args *skel.CmdArgs) error {
	ok, err := link.Exists(nil, hostName(args.ContainerID))
	if err == nil && !ok {
		err = fmt.Errorf("the node has no interface %s for the pod", hostName(args.ContainerID))
	}
	return err
}

// hostName is the node's end: the same for the same pod, so that DEL needs no memory.
func hostName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "veth" + hex.EncodeToString(sum[:])[:10]
}

func parse(ips []string) ([]netip.Prefix, error) {
	if len(ips) == 0 {
		return nil, errors.New(`the runtime gave no addresses: the plugin needs the capability "ips"`)
	}
	all := make([]netip.Prefix, len(ips))
	for i, s := range ips {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("address from the runtime: %w", err)
		}
		all[i] = p
	}
	return all, nil
}

// gateway is the first address of the pod's prefix.
func gateway(a netip.Prefix) netip.Addr { return a.Masked().Addr().Next() }

func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Called tells whether a program name (argument 0) is this plugin's.
func Called(arg0 string) bool { return strings.EqualFold(filepath.Base(arg0), Name) }
