package kinds

import "testing"

func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80, targetPort: http}]}\n"))
	f.Add([]byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web], http: [{timeout: 1s, match: [{uri: {regex: '['}}]}]}\n"))
	f.Add([]byte("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rules: [{from: [{source: {principals: [x]}}], when: [{key: source.ip, values: [x]}]}]}\n"))
	f.Add([]byte("a: &a [1]\nb: {<<: *a}\n? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := Decode("fuzz", data)
		if err != nil && found != nil {
			t.Fatal("both objects and an error")
		}
		for _, l := range found {
			if l.Object.GetName() == "" {
				t.Fatal("an object without a name")
			}
			l.Problems()
			out, err := Encode(l.Object)
			if err != nil {
				continue // what Istio's encoder cannot write (a duration out of range) is an error, not a crash
			}
			if _, err := Decode("again", out); err != nil {
				t.Fatalf("what was encoded is refused: %v\n%s", err, out)
			}
		}
	})
}
