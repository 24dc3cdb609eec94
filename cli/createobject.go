package cli

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// object is what `create KIND [TYPE] NAME` means; dash is where a container's command begins among args.
func (f createFlags) object(args []string, dash int) (kinds.Object, error) {
	var command []string
	if dash >= 0 {
		args, command = args[:dash], args[dash:]
	}
	k, ok := kinds.Find(args[0])
	if !ok {
		return nil, unknownKind(args[0])
	}
	name := args[len(args)-1]
	if want := 2; k.Kind == "Secret" && len(args) != 3 || k.Kind != "Secret" && len(args) != want {
		return nil, usage("create %s: want one name%s", args[0], map[bool]string{true: " after generic or tls"}[k.Kind == "Secret"])
	}
	o := k.New()
	var err error
	switch x := o.(type) {
	case *corev1.Namespace, *corev1.ServiceAccount:
	case *corev1.ConfigMap:
		var data map[string][]byte
		if data, err = f.data(); err == nil {
			x.Data = map[string]string{}
			for key, v := range data {
				x.Data[key] = string(v)
			}
		}
	case *corev1.Secret:
		err = f.secret(args[1], x)
	case *appsv1.Deployment:
		err = f.deployment(name, command, x)
	default:
		return nil, usage("create %s: write it as YAML and use -f", args[0])
	}
	if err != nil {
		return nil, err
	}
	o.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(k.APIVersion(), k.Kind))
	o.SetName(name)
	return o, nil
}

// data is what --from-literal and --from-file say.
func (f createFlags) data() (map[string][]byte, error) {
	data := map[string][]byte{}
	put := func(key string, v []byte) error {
		if _, twice := data[key]; twice {
			return usage("key %q is there twice", key)
		}
		data[key] = v
		return nil
	}
	for _, l := range f.literals {
		key, v, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, usage("--from-literal %q: want KEY=VALUE", l)
		}
		if err := put(key, []byte(v)); err != nil {
			return nil, err
		}
	}
	for _, p := range f.paths {
		key, path, ok := strings.Cut(p, "=")
		if !ok {
			key, path = filepath.Base(p), p
		}
		b, err := readFile(path, 1<<20) // more does not fit into an object
		if err != nil {
			return nil, err
		}
		if err := put(key, b); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (f createFlags) secret(word string, s *corev1.Secret) error {
	var err error
	switch word {
	case "generic":
		s.Type = corev1.SecretType(f.typ)
		s.Data, err = f.data()
		return err
	case "tls":
		if f.cert == "" || f.key == "" {
			return usage("create secret tls: give --cert FILE and --key FILE")
		}
		s.Type, s.Data = corev1.SecretTypeTLS, map[string][]byte{}
		for name, path := range map[string]string{corev1.TLSCertKey: f.cert, corev1.TLSPrivateKeyKey: f.key} {
			if s.Data[name], err = readFile(path, 1<<20); err != nil {
				return err
			}
		}
		if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
			return fmt.Errorf("%s and %s are no pair: %w", f.cert, f.key, err)
		}
		return nil
	}
	return usage("create secret %s: want generic or tls", word)
}

func (f createFlags) deployment(name string, command []string, d *appsv1.Deployment) error {
	if f.image == "" {
		return usage("create deployment: give --image IMAGE")
	}
	labels := map[string]string{"app": name}
	d.Labels, d.Spec.Replicas = labels, new(int32(f.replicas))
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	short, _, _ := strings.Cut(filepath.Base(f.image), ":")
	c := corev1.Container{Name: short, Image: f.image, Command: command}
	if f.port != 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: int32(f.port)}}
	}
	d.Spec.Template.Spec.Containers = []corev1.Container{c}
	return nil
}
