package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// apiAccess is the volume by which every pod can speak to the API server.
const (
	apiAccess     = "kube-api-access"
	apiAccessPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	rootCA        = "kube-root-ca.crt"
)

// withAPIAccess are the pod's volumes, with the one for the API server if the pod wants it.
func withAPIAccess(pod *corev1.Pod) []corev1.Volume {
	if pod.Spec.AutomountServiceAccountToken != nil && !*pod.Spec.AutomountServiceAccountToken {
		return pod.Spec.Volumes
	}
	ttl, optional := int64(3607), true
	return append(append([]corev1.Volume{}, pod.Spec.Volumes...), corev1.Volume{Name: apiAccess, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &ttl}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA}, Optional: &optional, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
			}}},
		}},
	}})
}

// volumes keeps the directories of a pod's volumes.
type volumes struct {
	k     *Kubelet
	dir   string
	paths map[string]string   // by volume
	trees map[string]*payload // those with content from the cluster
}

func newVolumes(k *Kubelet, dir string) *volumes {
	return &volumes{k: k, dir: filepath.Join(dir, "volumes"), paths: map[string]string{}, trees: map[string]*payload{}}
}

// prepare makes every volume; it can be repeated until nothing is missing.
func (v *volumes) prepare(pod *corev1.Pod, now time.Time) error {
	for _, vol := range withAPIAccess(pod) {
		if err := v.one(pod, vol, now); err != nil {
			return fmt.Errorf("volume %q: %w", vol.Name, err)
		}
	}
	return nil
}

func (v *volumes) one(pod *corev1.Pod, vol corev1.Volume, now time.Time) error {
	own := filepath.Join(v.dir, vol.Name)
	switch {
	case vol.EmptyDir != nil || vol.VolumeSource == corev1.VolumeSource{} || vol.Ephemeral != nil:
		v.paths[vol.Name] = own
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		return os.Chmod(own, 0o777)
	case vol.HostPath != nil:
		if err := v.k.mayMount(pod, vol.HostPath.Path); err != nil {
			return err
		}
		path, err := v.k.conf.Runtime.HostPath(v.k.conf.Node, vol.HostPath.Path, creates(vol.HostPath.Type))
		v.paths[vol.Name] = path
		return err
	case vol.ConfigMap != nil, vol.Secret != nil, vol.Projected != nil, vol.DownwardAPI != nil:
		v.paths[vol.Name] = own
		if v.trees[vol.Name] == nil {
			v.trees[vol.Name] = &payload{dir: own}
		}
		files, err := v.content(pod, vol, v.trees[vol.Name], now)
		if err != nil {
			return err
		}
		return v.trees[vol.Name].write(files)
	}
	return errors.New("a local cluster has no volumes of this kind: use emptyDir, hostPath, configMap, secret, projected or downwardAPI")
}

// creates tells whether a missing host path is made: a node of a local cluster starts empty.
func creates(t *corev1.HostPathType) bool {
	return t == nil || *t == corev1.HostPathUnset || *t == corev1.HostPathDirectoryOrCreate || *t == corev1.HostPathDirectory
}

// mounts are a container's.
func (v *volumes) mounts(pod *corev1.Pod, ctr corev1.Container) ([]view.Mount, error) {
	list := ctr.VolumeMounts
	own := false
	for _, m := range list {
		own = own || filepath.Clean(m.MountPath) == apiAccessPath
	}
	if !own && v.paths[apiAccess] != "" {
		list = append(append([]corev1.VolumeMount{}, list...), corev1.VolumeMount{Name: apiAccess, MountPath: apiAccessPath, ReadOnly: true})
	}
	var all []view.Mount
	for _, m := range list {
		source, ok := v.paths[m.Name]
		if !ok {
			return nil, fmt.Errorf("mount %s: the pod has no volume %q", m.MountPath, m.Name)
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			env, err := environment(v.k.conf.Cluster, pod, ctr, nil)
			if err != nil {
				return nil, err
			}
			sub = expandAll([]string{m.SubPathExpr}, env)[0]
		}
		if sub != "" {
			var err error
			if source, err = subPath(source, sub, v.trees[m.Name] == nil); err != nil {
				return nil, fmt.Errorf("mount %s: %w", m.MountPath, err)
			}
		}
		readOnly := m.ReadOnly || v.trees[m.Name] != nil
		all = append(all, view.Mount{Source: source, Target: m.MountPath, ReadOnly: readOnly})
	}
	return all, nil
}

// subPath is a path in a volume that must not lead out of it.
func subPath(volume, sub string, create bool) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	path := filepath.Join(volume, sub)
	if create {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			root, err := os.OpenRoot(volume)
			if err != nil {
				return "", err
			}
			defer root.Close()
			if err := root.MkdirAll(sub, 0o755); err != nil {
				return "", err
			}
		}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	base, err := filepath.EvalSymlinks(volume)
	if err != nil {
		return "", err
	}
	if real != base && !strings.HasPrefix(real, base+"/") {
		return "", fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	return real, nil
}
