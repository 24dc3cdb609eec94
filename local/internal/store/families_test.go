package store

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestFamilies(t *testing.T) {
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	one, two, six := []corev1.IPFamily{v4}, []corev1.IPFamily{v4, v6}, []corev1.IPFamily{v6}
	single, prefer, require := corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack
	for _, c := range []struct {
		name    string
		cluster []corev1.IPFamily
		spec    corev1.ServiceSpec
		want    string
	}{
		{"nothing said", two, corev1.ServiceSpec{}, "SingleStack [IPv4] []"},
		{"nothing said, of IPv6", six, corev1.ServiceSpec{}, "SingleStack [IPv6] []"},
		{"a family", two, corev1.ServiceSpec{IPFamilies: six}, "SingleStack [IPv6] []"},
		{"a family that is not there", one, corev1.ServiceSpec{IPFamilies: six}, ""},
		{"an address says the family", two, corev1.ServiceSpec{ClusterIP: "fd00::1"}, "SingleStack [IPv6] [fd00::1]"},
		{"prefer two, of one", one, corev1.ServiceSpec{IPFamilyPolicy: &prefer}, "PreferDualStack [IPv4] []"},
		{"prefer two, of two", two, corev1.ServiceSpec{IPFamilyPolicy: &prefer}, "PreferDualStack [IPv4 IPv6] []"},
		{"prefer two, the other first", two, corev1.ServiceSpec{IPFamilyPolicy: &prefer, IPFamilies: six}, "PreferDualStack [IPv6 IPv4] []"},
		{"prefer two that are named, of one", one, corev1.ServiceSpec{IPFamilyPolicy: &prefer, IPFamilies: two}, "PreferDualStack [IPv4] []"},
		{"want two, of one", one, corev1.ServiceSpec{IPFamilyPolicy: &require}, ""},
		{"want two by naming them", two, corev1.ServiceSpec{IPFamilies: two}, "RequireDualStack [IPv4 IPv6] []"},
		{"back to one", two, corev1.ServiceSpec{IPFamilyPolicy: &single, IPFamilies: two, ClusterIP: "10.96.1.0", ClusterIPs: []string{"10.96.1.0", "fd00::1"}}, "SingleStack [IPv4] [10.96.1.0]"},
		{"headless", two, corev1.ServiceSpec{ClusterIP: "None", Selector: map[string]string{"a": "b"}}, "SingleStack [IPv4] [None]"},
		{"headless of nobody's pods", two, corev1.ServiceSpec{ClusterIP: "None"}, "PreferDualStack [IPv4 IPv6] [None]"},
		{"no such policy", two, corev1.ServiceSpec{IPFamilyPolicy: new(corev1.IPFamilyPolicy("Both"))}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &corev1.Service{Spec: c.spec}
			err := families(s, c.cluster)
			if c.want == "" {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("error %v, want that it is invalid", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(*s.Spec.IPFamilyPolicy, " ", s.Spec.IPFamilies, " ", s.Spec.ClusterIPs); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
