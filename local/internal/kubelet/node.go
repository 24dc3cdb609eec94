package kubelet

import (
	"maps"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// node is the object by which the cluster knows this node.
func (k *Kubelet) node() *corev1.Node {
	n := k.conf.Node
	labels := map[string]string{
		"kubernetes.io/hostname": n.Name, "kubernetes.io/os": goruntime.GOOS, "kubernetes.io/arch": goruntime.GOARCH,
	}
	maps.Copy(labels, k.conf.Labels)
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	o := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels},
		Spec:       corev1.NodeSpec{PodCIDR: n.Pods[0].String(), Taints: k.conf.Taints},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{
				corev1.ResourcePods: resource.MustParse("200"), corev1.ResourceCPU: *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
			},
			Addresses: []corev1.NodeAddress{},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status",
				LastHeartbeatTime: now, LastTransitionTime: now,
			}},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH, ContainerRuntimeVersion: "ambit", KubeletVersion: "v1.36.1", OSImage: "ambit local", KernelVersion: kernel(),
			},
		},
	}
	o.Status.Allocatable = o.Status.Capacity
	for _, p := range n.Pods {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.String())
	}
	for _, a := range n.Addrs {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
	return o
}

// kernel is the machine's version of it, which is every node's.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
