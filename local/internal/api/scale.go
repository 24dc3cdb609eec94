package api

import (
	"encoding/json"
	"io"
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// scaled are the parts of a workload that its scale subresource shows; ok tells whether the kind has one.
func scaled(o kinds.Object) (want **int32, have int32, selector *metav1.LabelSelector, ok bool) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector, true
	case *appsv1.ReplicaSet:
		return &o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector, true
	case *appsv1.StatefulSet:
		return &o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector, true
	}
	return nil, 0, nil, false
}

func scales(k kinds.Kind) bool {
	_, _, _, ok := scaled(k.New())
	return ok
}

func scaleOf(o kinds.Object) autoscalingv1.Scale {
	want, have, selector, _ := scaled(o)
	s := autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(),
			ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(),
		},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: metav1.FormatLabelSelector(selector)},
	}
	if *want != nil {
		s.Spec.Replicas = **want
	}
	return s
}

// scale answers for the scale subresource, by which a workload's size is read and set alone.
func (s *Server) scale(w http.ResponseWriter, r *http.Request, q request) error {
	o, err := s.store.Get(q.kind, q.namespace, q.name)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut, http.MethodPatch:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		var wish struct {
			Metadata struct{ ResourceVersion string }
			Spec     struct{ Replicas *int32 }
		}
		if err := json.Unmarshal(data, &wish); err != nil {
			return problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "read the scale: " + err.Error()}
		}
		n := wish.Spec.Replicas
		if n == nil && r.Method == http.MethodPut {
			n = new(int32(0)) // a Scale leaves out what is 0
		}
		o, err = s.writer(q).Update(q.kind, q.namespace, q.name, func(o kinds.Object) error {
			if wish.Metadata.ResourceVersion != "" {
				o.SetResourceVersion(wish.Metadata.ResourceVersion)
			}
			if want, _, _, ok := scaled(o); ok && n != nil {
				*want = n
			}
			return nil
		})
		if err != nil {
			return err
		}
	default:
		return problem{http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, r.Method + " is not for a scale"}
	}
	sendJSON(w, http.StatusOK, scaleOf(o))
	return nil
}
