package capture_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

type words = map[string]string

func TestOptions(t *testing.T) {
	const bypass, dns = "ambient.istio.io/bypass-inbound-capture", "ambient.istio.io/dns-capture"
	for _, c := range []struct {
		name  string
		words words
		dns   bool
		want  capture.Pod
	}{
		{name: "nothing said"},
		{name: "DNS for all", dns: true, want: capture.Pod{DNS: true}},
		{name: "DNS for all but this", dns: true, words: words{dns: "false"}},
		{name: "DNS for this", words: words{dns: "true"}, want: capture.Pod{DNS: true}},
		{name: "bypass", words: words{bypass: "true"}, want: capture.Pod{BypassInbound: true}},
		{name: "no bypass", words: words{bypass: "false"}},
		{name: "virtual machines", words: words{"istio.io/reroute-virtual-interfaces": " k6t-1 ,k6t-2,,k6t-1"}, want: capture.Pod{Virtual: "k6t-1,k6t-2"}},
		{name: "names that no interface has", words: words{"istio.io/reroute-virtual-interfaces": "eth*,a b,longer-than-fifteen,a/b,\n,ok"}, want: capture.Pod{Virtual: "ok"}},
		{name: "words that are no boolean change nothing", dns: true, words: words{bypass: "yes please", dns: "off"}, want: capture.Pod{DNS: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v6 := range []bool{false, true} {
				c.want.V6 = v6
				if got := capture.Options(objects.Pod{Annotations: c.words}, capture.Pod{DNS: c.dns, V6: v6}); got != c.want {
					t.Errorf("Options = %+v, want %+v", got, c.want)
				}
			}
		})
	}
}
