package ca

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/mesh"
)

// RotationSecret holds a rotation that is under way. Removing it ends the rotation at once.
const RotationSecret = mesh.CARotationSecret

const planKey = "rotation.json"

// plan is a rotation on disk, without the authority that signs.
type plan struct {
	Next   string    `json:"next"`
	Switch time.Time `json:"switch"`
	Old    []oldRoot `json:"old"`
}

type oldRoot struct {
	Cert  string    `json:"cert"`
	Until time.Time `json:"until"`
}

// Secret is how a rotation is kept. It holds the old key until it signs no more.
func (r Rotation) Secret(namespace string) (*corev1.Secret, error) {
	data := map[string][]byte{}
	if r.Signing != nil {
		var err error
		if data, err = r.Signing.data(); err != nil {
			return nil, err
		}
	}
	p := plan{Next: r.Next, Switch: r.Switch.UTC()}
	for _, o := range r.Old {
		p.Old = append(p.Old, oldRoot{string(encodePEM(o.Cert)), o.Until.UTC()})
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write the rotation of the CA: %w", err)
	}
	data[planKey] = text
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: RotationSecret, Namespace: namespace},
		Type:       "ambit.io/ca-rotation", Data: data,
	}, nil
}

// RotationFromSecret reads a rotation.
func RotationFromSecret(s *corev1.Secret, now time.Time) (Rotation, error) {
	fail := func(err error) (Rotation, error) {
		return Rotation{}, fmt.Errorf("read the rotation of the CA from Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	var p plan
	if err := json.Unmarshal(s.Data[planKey], &p); err != nil {
		return fail(fmt.Errorf("%s: %w", planKey, err))
	}
	r := Rotation{Next: p.Next, Switch: p.Switch}
	for _, o := range p.Old {
		certs, err := parseCerts(planKey, []byte(o.Cert))
		if err != nil {
			return fail(err)
		}
		r.Old = append(r.Old, OldRoot{certs[0], o.Until})
	}
	if len(s.Data[keyKey]) > 0 && now.Before(r.Switch) {
		signing, err := fromData(s.Data, now)
		if err != nil {
			return fail(err)
		}
		r.Signing = signing
	}
	return r, nil
}
