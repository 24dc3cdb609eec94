package fakeapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Issue says how the server gives tokens of a service account. They may read single pods and namespaces.
type Issue struct {
	Namespace, Account string
	// Most is the longest life. Default what is asked for.
	Most time.Duration
	// Status other than 0 refuses instead.
	Status int
	// Powerless makes tokens that may do nothing.
	Powerless bool
}

// Issue makes the server give tokens.
func (s *Server) Issue(i Issue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuing = &i
}

// Revoke makes the server refuse a token from now on.
func (s *Server) Revoke(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[token] = true
}

// Issued is how many tokens were given so far.
func (s *Server) Issued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.issued)
}

// admit refuses tokens that were revoked or have ended, and those of an account what the account may not.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api v1 namespaces NAME pods NAME
	one := len(parts) == 4 || len(parts) == 6 && parts[4] == "pods"
	s.mu.Lock()
	ends, issued := s.issued[token]
	out := s.revoked[token] || issued && time.Now().After(ends)
	may := !issued || r.Method == http.MethodGet && one && len(r.URL.RawQuery) == 0 && !s.issuing.Powerless
	s.mu.Unlock()
	switch {
	case out:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case !may:
		http.Error(w, "forbidden", http.StatusForbidden)
	}
	return !out && may
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Kind string `json:"kind"`
		Spec struct {
			Seconds int64 `json:"expirationSeconds"`
			Bound   any   `json:"boundObjectRef"`
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask.Kind != "TokenRequest" || ask.Spec.Seconds < 600 || ask.Spec.Bound != nil {
		http.Error(w, fmt.Sprintf("not a request for a token: %+v %v", ask, err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.issuing
	switch {
	case i == nil || r.URL.Path != "/api/v1/namespaces/"+i.Namespace+"/serviceaccounts/"+i.Account+"/token":
		http.Error(w, "no such service account", http.StatusNotFound)
		return
	case i.Status != 0:
		http.Error(w, "not now", i.Status)
		return
	}
	life := time.Duration(ask.Spec.Seconds) * time.Second
	if i.Most != 0 {
		life = min(life, i.Most)
	}
	now := time.Now()
	payload := fmt.Sprintf(`{"sub":"system:serviceaccount:%s:%s","iat":%d,"exp":%d,"n":%d}`, i.Namespace, i.Account, now.Unix(), now.Add(life).Unix(), len(s.issued))
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	s.issued[token] = now.Add(life)
	w.WriteHeader(http.StatusCreated)
	answer(w, map[string]any{"status": map[string]any{"token": token, "expirationTimestamp": now.Add(life).UTC()}}, true)
}
