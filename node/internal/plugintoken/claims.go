package plugintoken

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// read is what a token says of itself, to know whether to ask for another: nobody has verified it.
func read(token string) (subject string, made, ends time.Time, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", made, ends, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", made, ends, false
	}
	var c struct {
		Subject string `json:"sub"`
		Made    int64  `json:"iat"`
		Ends    int64  `json:"exp"`
	}
	const latest = 1 << 40 // that times can be reckoned with
	if json.Unmarshal(b, &c) != nil || c.Made <= 0 || c.Ends <= c.Made || c.Ends > latest {
		return "", made, ends, false
	}
	return c.Subject, time.Unix(c.Made, 0), time.Unix(c.Ends, 0), true
}
