package api

import (
	"cmp"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// special answers for the paths that are no objects: discovery, health, and what only this cluster has.
func (s *Server) special(path string) (answer http.HandlerFunc, ambit, ok bool) {
	path = strings.TrimSuffix(path, "/")
	value := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				fail(w, problem{http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, r.Method + " is not for " + path})
				return
			}
			sendJSON(w, http.StatusOK, v)
		}
	}
	switch path {
	case "/healthz", "/livez", "/readyz":
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }, false, true
	case "/version":
		return value(version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.1+ambit", GoVersion: runtime.Version(), Platform: "linux/" + runtime.GOARCH, Compiler: runtime.Compiler}), false, true
	case "/api":
		return value(metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}}), false, true
	case "/apis":
		return value(groups()), false, true
	case "/ambit/v1/apply":
		return s.applyFile, true, true
	case "/ambit/v1/problems":
		return s.problems, true, true
	}
	if path == "/openapi/v3" {
		return value(openAPIs()), false, true
	}
	if rest, ok := strings.CutPrefix(path, "/openapi/v3/"); ok {
		if doc, ok := openAPI(rest); ok {
			return value(doc), false, true
		}
	}
	if rest, ok := strings.CutPrefix(path, "/api/"); ok && rest == "v1" {
		return value(resources("", "v1")), false, true
	}
	if rest, ok := strings.CutPrefix(path, "/apis/"); ok {
		if group, v, two := strings.Cut(rest, "/"); two && !strings.Contains(v, "/") {
			if list := resources(group, v); len(list.APIResources) > 0 {
				return value(list), false, true
			}
		} else if !two {
			for _, g := range groups().Groups {
				if g.Name == group {
					g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
					return value(g), false, true
				}
			}
		}
	}
	return nil, false, false
}

func groups() metav1.APIGroupList {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, k := range kinds.All() {
		if k.Group == "" {
			continue
		}
		at := slices.IndexFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == k.Group })
		if at < 0 {
			at = len(list.Groups)
			list.Groups = append(list.Groups, metav1.APIGroup{Name: k.Group})
		}
		g := &list.Groups[at]
		for _, v := range k.Versions {
			is := metav1.GroupVersionForDiscovery{GroupVersion: k.Group + "/" + v, Version: v}
			if !slices.Contains(g.Versions, is) {
				g.Versions = append(g.Versions, is)
			}
		}
		g.PreferredVersion = g.Versions[0]
	}
	return list
}

func resources(group, version string) metav1.APIResourceList {
	gv := strings.TrimPrefix(group+"/"+version, "/")
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	for _, k := range kinds.All() {
		if k.Group != group || !slices.Contains(k.Versions, version) {
			continue
		}
		list.APIResources = append(list.APIResources,
			metav1.APIResource{
				Name: k.Plural, SingularName: strings.ToLower(k.Kind), Namespaced: k.Namespaced, Kind: k.Kind, ShortNames: k.Short, Categories: categories(k),
				Verbs: metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
			},
			metav1.APIResource{Name: k.Plural + "/status", Namespaced: k.Namespaced, Kind: k.Kind, Verbs: metav1.Verbs{"get", "patch", "update"}})
		if scales(k) {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: k.Plural + "/scale", Namespaced: true, Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: metav1.Verbs{"get", "patch", "update"},
			})
		}
	}
	return list
}

// categories are the words that stand for several kinds: kubectl get all.
func categories(k kinds.Kind) []string {
	all := []string{"Pod", "Service", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "CronJob", "HorizontalPodAutoscaler"}
	switch {
	case strings.HasSuffix(k.Group, "istio.io"):
		return []string{"istio-io"}
	case k.Group == "gateway.networking.k8s.io":
		return []string{"gateway-api"}
	case slices.Contains(all, k.Kind):
		return []string{"all"}
	}
	return nil
}

// result is what applying did to one object.
type result struct {
	Kind      string `json:"kind"`
	Group     string `json:"group"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Result    string `json:"result"`
	// Idle is what of the object is kept and not acted on.
	Idle []string `json:"idle,omitempty"`
}

func (s *Server) applyFile(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		fail(w, problem{http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "apply by POST"})
		return
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, err)
		return
	}
	v := r.URL.Query()
	file := store.File{Name: cmp.Or(v.Get("file"), "request"), Data: data}
	done, err := s.store.ApplyFiles([]store.File{file}, cmp.Or(v.Get("namespace"), "default"), v.Get("dryRun") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	results := []result{}
	for _, d := range done {
		k := kinds.Of(d.Object)
		results = append(results, result{k.Kind, k.Group, d.Object.GetNamespace(), d.Object.GetName(), string(d.Action), idle(d.Object)})
	}
	sendJSON(w, http.StatusOK, struct {
		Results []result `json:"results"`
	}{results})
}

// problems lists why files are not in force.
func (s *Server) problems(w http.ResponseWriter, _ *http.Request) {
	list := []string{}
	for path, err := range s.store.Refused() {
		text := err.Error()
		if !strings.Contains(text, path) {
			text = path + ": " + text
		}
		list = append(list, text)
	}
	slices.Sort(list)
	sendJSON(w, http.StatusOK, list)
}
