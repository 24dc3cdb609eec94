package gdump_test

import (
	"bytes"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/gdump"
	"github.com/ambit-mesh/ambit/local/table"
)

const dump = `{
 "listeners": [{"name": "l", "port": 8080, "servicePort": 80, "protocol": "HTTP", "hosts": ["*"], "gateway": "default/web", "routes": "http.8080", "later": true}],
 "routes": [{"name": "r", "set": "http.8080", "hosts": ["shop.example.com"], "rules": [
  {"matches": [{"path": {"exact": "/a"}, "method": {"exact": "GET"}}, {"path": {"prefix": "/b"}, "headers": [{"name": "x", "value": {"regex": "v.*"}}]}],
   "forward": {"destinations": [{"backend": "Pod/a/b/default/web.default:80", "weight": 3}, {"backend": "Pod/a/b/default/web2.default:80", "weight": 1}]}, "source": "VirtualService/default/web"},
  {"redirect": {"code": 301, "scheme": "https", "host": "x"}, "source": "VirtualService/default/web"},
  {"matches": [{"path": {"pathPrefix": "/c"}}], "directResponse": {"status": 404}}]}],
 "backends": [{"name": "b", "namespace": "default", "hostname": "web.default", "port": 80, "rule": "default/dr", "endpoints": [
  {"address": "10.0.0.1", "port": 8080, "identity": "spiffe://t/ns/default/sa/web", "tunnel": "TUNNEL_HBONE", "node": "n1", "workload": {"name": "web-v1", "namespace": "default"}}]},
  {"name": "c", "hostname": "gone.default", "port": 80, "unknown": true}],
 "secrets": ["istio-system/cert"]}`

func TestTables(t *testing.T) {
	d, err := gdump.Parse([]byte(dump))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		rows gdump.Table
		want string
	}{
		{"listeners", d.ListenerTable(), "PORT   SERVICE PORT   PROTOCOL   HOSTS   GATEWAY\n8080   80             HTTP       *       default/web\n"},
		{"routes", d.RouteTable(), "" +
			"ROUTES      HOSTS              MATCH                                  TO                                            FROM\n" +
			"http.8080   shop.example.com   /a, method GET or /b*, header x ~v.*   web.default:80 (75%), web2.default:80 (25%)   VirtualService/default/web\n" +
			"http.8080   shop.example.com   everything                             redirect 301 https://x                        VirtualService/default/web\n" +
			"http.8080   shop.example.com   /c/*                                   answer 404                                    \n"},
		{"backends", d.BackendTable(), "SERVICE FQDN   PORT   SUBSET   ENDPOINTS                 DESTINATION RULE\ngone.default   80     -        no such service or port   -\nweb.default    80     -        1                         default/dr\n"},
		{"endpoints", d.EndpointTable(), "ENDPOINT        TUNNEL   WORKLOAD         NODE   IDENTITY                       SERVICE\n10.0.0.1:8080   HBONE    web-v1.default   n1     spiffe://t/ns/default/sa/web   web.default:80\n"},
		{"secrets", d.SecretTable(), "RESOURCE NAME       STATUS\nistio-system/cert   ACTIVE\n"},
	} {
		var b bytes.Buffer
		if err := table.Align(&b, c.rows); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, b.String(), c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(dump))
	f.Add([]byte(`{"listeners": null, "routes": [{"rules": [{"matches": [{}]}]}], "backends": []}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		d, err := gdump.Parse(b)
		if err != nil {
			return
		}
		d.ListenerTable()
		d.RouteTable()
		d.BackendTable()
		d.EndpointTable()
		d.SecretTable()
	})
}
