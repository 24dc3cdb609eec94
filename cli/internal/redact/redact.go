// Package redact takes secrets out of texts that people hand on: private keys, tokens, and values that are called so.
package redact

import (
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Left stands where something was.
const Left = "(left out)"

// Text takes private keys and tokens out of a text.
func Text(b []byte) []byte {
	for _, r := range patterns() {
		b = r.find.ReplaceAll(b, []byte(r.put))
	}
	return b
}

type pattern struct {
	find *regexp.Regexp
	put  string
}

func patterns() []pattern {
	return []pattern{
		// A key in PEM, over lines or with its line breaks written as \n, as in JSON; one that was cut off too.
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`), Left},
		// The same in base64: "-----BEGIN" in its three alignments, with PRIVATE KEY somewhere after.
		{regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]*(UFJJVkFURSBLRV|BSSVZBVEUgS0VZ|QUklWQVRFIEtFW)[A-Za-z0-9+/=_-]*`), Left},
		// JSON web tokens: three parts, of which the first two are objects.
		{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), Left},
		{regexp.MustCompile(`(?i)(bearer|basic) +[A-Za-z0-9._~+/=-]{12,}`), "$1 " + Left},
		{regexp.MustCompile(`(?i)("?\b(?:password|passwd|secret[_-]?key|access[_-]?key|api[_-]?key|client[_-]?secret|auth[_-]?token)"?\s*[:=]\s*)("[^"]{3,}"|'[^']{3,}'|[^\s"',}]{3,})`), "${1}" + Left},
	}
}

// Object takes the values of Secrets and of variables with telling names out of a copy of an object.
func Object(o kinds.Object) kinds.Object {
	o = o.DeepCopyObject().(kinds.Object)
	a := o.GetAnnotations()
	if _, ok := a[corev1.LastAppliedConfigAnnotation]; ok {
		a[corev1.LastAppliedConfigAnnotation] = Left // it repeats the object
	}
	switch x := o.(type) {
	case *corev1.Secret:
		for k := range x.Data {
			x.Data[k] = []byte(Left)
		}
		for k := range x.StringData {
			x.StringData[k] = Left
		}
	case *corev1.ConfigMap:
		for k := range x.BinaryData {
			x.BinaryData[k] = []byte(Left)
		}
	}
	if spec := pods(o); spec != nil {
		variables(spec)
	}
	return o
}

// pods are the pods that an object is or makes.
func pods(o kinds.Object) *corev1.PodSpec {
	switch x := o.(type) {
	case *corev1.Pod:
		return &x.Spec
	case *appsv1.Deployment:
		return &x.Spec.Template.Spec
	case *appsv1.DaemonSet:
		return &x.Spec.Template.Spec
	case *appsv1.StatefulSet:
		return &x.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		return &x.Spec.Template.Spec
	case *batchv1.Job:
		return &x.Spec.Template.Spec
	case *batchv1.CronJob:
		return &x.Spec.JobTemplate.Spec.Template.Spec
	}
	return nil
}

func variables(s *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			for j, e := range list[i].Env {
				if e.Value != "" && tells(e.Name) {
					list[i].Env[j].Value = Left
				}
			}
		}
	}
}

func tells(name string) bool {
	name = strings.ToUpper(name)
	for _, word := range []string{"PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIAL"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
