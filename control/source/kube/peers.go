package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Of the Lease in which a control plane says what is so at its proxies.
const (
	replicaLabel  = "ambit.io/replica"
	replicaReport = "ambit.io/in-force"
	replicaPrefix = "ambit-replica-"
)

// peersDuration is how long a control plane is thought to be there that is not heard of.
const peersDuration = 15 * time.Second

// PeersConfig is who takes part in an exchange, and where.
type PeersConfig struct {
	REST            *rest.Config
	Namespace, Name string // of this process, which are its pod's in a cluster
	// UID of the pod: with it goes what it said. "" where nothing would take it away.
	UID string
}

// Peers are the control planes of one mesh. Each says what it has to say in a Lease of its own.
type Peers struct {
	conf PeersConfig
	api  rest.Interface

	seen map[string]seen // by name of the Lease; owned by Others
}

// seen is since when a Lease has stood still.
type seen struct {
	version string
	at      time.Time
}

// NewPeers makes an exchange.
func NewPeers(c PeersConfig) (*Peers, error) {
	api, err := newClients(c.REST)
	if err != nil {
		return nil, err
	}
	return &Peers{conf: c, api: api.groups[coordinationv1.GroupName], seen: map[string]seen{}}, nil
}

func (p *Peers) name() string { return replicaPrefix + p.conf.Name }

// Tell writes what this control plane has to say.
func (p *Peers) Tell(ctx context.Context, report []byte) error {
	ctx, cancel := context.WithTimeout(ctx, peersDuration)
	defer cancel()
	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.conf.Namespace, Name: p.name(),
			Labels: map[string]string{replicaLabel: "true"}, Annotations: map[string]string{replicaReport: string(report)},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &p.conf.Name, RenewTime: &now, LeaseDurationSeconds: new(int32(peersDuration / time.Second))},
	}
	if p.conf.UID != "" {
		lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.conf.Name, UID: types.UID(p.conf.UID)}}
	}
	data, err := json.Marshal(lease)
	if err != nil {
		return fmt.Errorf("write a Lease: %w", err)
	}
	opts := &metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)}
	err = p.api.Patch(types.ApplyPatchType).Namespace(p.conf.Namespace).Resource("leases").Name(p.name()).
		VersionedParams(opts, metav1.ParameterCodec).Body(data).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("apply the Lease %s/%s: %w", p.conf.Namespace, p.name(), err)
	}
	return nil
}

// Others reads what the others have to say. Only our own clock counts: a Lease that stands still is of nobody.
func (p *Peers) Others(ctx context.Context) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, peersDuration)
	defer cancel()
	list := &coordinationv1.LeaseList{}
	opts := &metav1.ListOptions{LabelSelector: replicaLabel + "=true", ResourceVersion: "0"}
	if err := p.api.Get().Namespace(p.conf.Namespace).Resource("leases").VersionedParams(opts, metav1.ParameterCodec).Do(ctx).Into(list); err != nil {
		return nil, fmt.Errorf("list the Leases of control planes in %s: %w", p.conf.Namespace, err)
	}
	now := time.Now()
	was := p.seen
	p.seen = make(map[string]seen, len(list.Items))
	var there []coordinationv1.Lease
	for _, l := range list.Items {
		s, known := was[l.Name]
		if !known || s.version != l.ResourceVersion {
			s = seen{l.ResourceVersion, now}
		}
		p.seen[l.Name] = s
		if l.Name != p.name() && now.Sub(s.at) < peersDuration && l.Annotations[replicaReport] != "" {
			there = append(there, l)
		}
	}
	late := func(l coordinationv1.Lease) int {
		if now.Sub(p.seen[l.Name].at) < peersDuration/2 {
			return 0
		}
		return 1
	}
	slices.SortFunc(there, func(a, b coordinationv1.Lease) int {
		return cmp.Or(late(a)-late(b), cmp.Compare(a.Name, b.Name))
	})
	out := make([][]byte, len(there))
	for i, l := range there {
		out[i] = []byte(l.Annotations[replicaReport])
	}
	return out, nil
}
