package sandbox

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
)

// ProbeName is what the binary is called by (argument 0) when it is to try the kernel out.
const ProbeName = "ambit-probe"

// Probing tells whether this process was started to probe.
func Probing() bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == ProbeName }

// trial is one thing that a cluster needs of the kernel.
type trial struct {
	name, what, allow string
	try               func() error
}

func probes() []trial {
	const module = "load the module, or use the distribution's own kernel: sudo modprobe "
	return []trial{
		{"proc", "mounting /proc in a PID namespace", "in a container: docker run --privileged …, or --security-opt systempaths=unconfined", tryProc},
		{"mounts", "a file system in memory with read-only views of the machine's", "use a kernel 5.12 or newer; in a container: docker run --privileged …", tryMounts},
		{"bridge", "a network bridge", module + "bridge", func() error { return link.AddBridge(nil, "probe-br") }},
		{"veth", "pairs of network interfaces (veth)", module + "veth", tryVeth},
		{"routing", "routing by packet marks (policy routing)", "use a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IP_ADVANCED_ROUTER", func() error {
			return link.AddRule(nil, link.Rule{Mark: 0x111, Mask: 0xfff, Priority: 32764, Table: 100})
		}},
		{"forwarding", "packet forwarding (net.ipv4.ip_forward)", "mount /proc/sys writable; in a container: docker run --privileged …", func() error {
			return link.SetSysctl(nil, "ipv4/ip_forward", "1")
		}},
		{"transparent", "sockets with foreign addresses (IP_TRANSPARENT)", "the process needs CAP_NET_ADMIN in its own network namespace", tryTransparent},
		{"capture", "packet capture (AF_PACKET)", module + "af_packet", tryPacket},
		{"nftables", "address translation and redirection by nftables", module + "nf_tables nft_nat nft_redir nft_chain_nat nf_conntrack", tryNftables},
	}
}

// ProbeMain tries everything and writes what failed to standard output.
func ProbeMain() int {
	missing := map[string]string{}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		missing["mounts"] = err.Error()
	}
	for _, p := range probes() {
		if err := p.try(); err != nil {
			missing[p.name] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(missing); err != nil {
		return 1
	}
	return 0
}

func tryProc() error {
	return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

func tryMounts() error {
	dir := "/tmp"
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount memory: %w", err)
	}
	at := filepath.Join(dir, "view")
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/usr", at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

func tryVeth() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	if err := link.AddVeth(link.Veth{Name: "probe-a", Peer: "probe-b", PeerNS: ns}); err != nil {
		return err
	}
	if err := link.AddAddr(nil, "probe-a", netip.MustParsePrefix("10.255.255.1/32")); err != nil {
		return err
	}
	return ns.Close()
}

func tryTransparent() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x539)
}

func tryPacket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// tryNftables applies the kinds of rules that the mesh and Services need.
func tryNftables() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	to := netip.MustParseAddrPort("10.255.255.1:80")
	return nft.Apply(ns, nft.Table{Family: nft.INet, Name: "ambit-probe", Chains: []nft.Chain{
		{Name: "prerouting", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
			nft.If(nft.TCP(), nft.Dport(80)).Then(nft.DNAT(to)),
			nft.If(nft.TCP()).Then(nft.Redirect(15006)),
		}},
		{Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT, Rules: []nft.Rule{
			nft.If(nft.TCP(), nft.Dport(81)).Then(nft.SNAT(to.Addr())),
		}},
	}})
}
