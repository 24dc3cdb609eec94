package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestTimeToDrainLeavesTimeBeforeTheKubeletKills(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		args []string
		want time.Duration
		err  string
	}{
		{want: 30 * time.Second},
		{env: map[string]string{"TERMINATION_GRACE_PERIOD_SECONDS": "35"}, want: 30 * time.Second},
		{env: map[string]string{"TERMINATION_GRACE_PERIOD_SECONDS": "10"}, want: 9 * time.Second},
		{env: map[string]string{"TERMINATION_GRACE_PERIOD_SECONDS": "1"}, want: time.Second},
		{env: map[string]string{"TERMINATION_GRACE_PERIOD_SECONDS": "35", "CONNECTION_TERMINATION_DEADLINE": "2h"}, want: 2 * time.Hour},
		{env: map[string]string{"CONNECTION_TERMINATION_DEADLINE": "2h"}, args: []string{"-grace", "7s"}, want: 7 * time.Second},
		{env: map[string]string{"TERMINATION_GRACE_PERIOD_SECONDS": "soon"}, err: "TERMINATION_GRACE_PERIOD_SECONDS=soon"},
		{args: []string{"-grace", "-1s"}, err: "grace"},
	} {
		got, err := parse(append(c.args, "-node", "n1"), func(name string) string { return c.env[name] }, io.Discard)
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%v %v: error %v, want one that names %s", c.env, c.args, err, c.err)
		case c.err == "" && (err != nil || got.grace != c.want):
			t.Errorf("%v %v: %v, %v, want %v", c.env, c.args, got.grace, err, c.want)
		}
	}
}

func TestLifeOfCertificates(t *testing.T) {
	for _, c := range []struct {
		ttl  string
		want time.Duration
	}{{"", 24 * time.Hour}, {"15m", 15 * time.Minute}, {"3600", time.Hour}, {"soon", 0}, {"1s", 0}, {"-1h", 0}} {
		got, err := parse([]string{"-node", "n1"}, func(name string) string { return map[string]string{"SECRET_TTL": c.ttl}[name] }, io.Discard)
		if c.want == 0 && (err == nil || !strings.Contains(err.Error(), c.ttl)) || c.want != 0 && (err != nil || got.certTTL != c.want) {
			t.Errorf("SECRET_TTL=%s: %v, %v; want %v", c.ttl, got.certTTL, err, c.want)
		}
	}
}
