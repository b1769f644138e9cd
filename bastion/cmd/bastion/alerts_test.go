package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"mayfly/bastion/alert"
)

// TestAlertsEndToEnd has a confined bastion tell a real webhook and a real program of what it refused, and of a login that
// "bastion audit reconcile" found no record of; its metrics count them, and its log is JSON.
func TestAlertsEndToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, _, config := passed(t)
	dir := filepath.Dir(config)

	posts := make(chan string, 64)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		posts <- string(data)
	}))
	defer hook.Close()
	deliverer := filepath.Join(t.TempDir(), "bastion-alerts")
	build := exec.CommandContext(ctx, "go", "build", "-o", deliverer, "../bastion-alerts")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script, got := filepath.Join(dir, "alert"), filepath.Join(dir, "alerts.jsonl")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "m.sock")
	more := "metrics = \"m.sock\"\nlog = \"json\"\n[alerts]\nwebhook = \"" + hook.URL + "/hook\"\ntoken = \"token\"\nca = \"ca.pem\"\nexec = \"" + script + "\"\nprogram = \"" + deliverer + "\"\n"
	l := plainTCP(t) // a port that is free once it is closed
	address := l.Addr().String()
	l.Close()
	_, rest, _ := strings.Cut(string(text), "\n")
	text = []byte("listen = \"" + address + "\"\n" + rest + more)
	for path, content := range map[string]struct {
		data string
		mode os.FileMode
	}{
		config:                          {string(text), 0o600},
		filepath.Join(dir, "token"):     {"s3cret\n", 0o600},
		filepath.Join(dir, "ca.pem"):    {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})), 0o644},
		script:                          {"#!/bin/sh\ncat >> " + got + "\n", 0o755},
		filepath.Join(dir, "logins.js"): {`{"kind":"mayfly-logins/1","logins":[{"server":"se-1","time":"2030-01-01T00:00:00Z","user":"mallory","method":"publickey","key":"SHA256:x","peer":"192.0.2.66:5"}]}`, 0o644},
	} {
		if err := os.WriteFile(path, []byte(content.data), content.mode); err != nil {
			t.Fatal(err)
		}
	}
	logs, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	cmd := exec.Command("bastion", "serve", "--config", config)
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	said := func() string {
		data, err := os.ReadFile(logs.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	waitText(t, said, `"msg":"ready"`)

	// A certificate that is none is refused, and the old one stays.
	if err := os.WriteFile(filepath.Join(dir, "host_key-cert.pub"), []byte("none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	take := func() (a alert.Alert) {
		t.Helper()
		select {
		case post := <-posts:
			var err error
			if a, err = alert.Parse([]byte(post)); err != nil {
				t.Errorf("%s: %v", post, err)
			}
		case <-ctx.Done():
			t.Fatalf("no post; the bastion says\n%s", said())
		}
		return a
	}
	if policy := take(); policy.Kind != alert.PolicyRefused || policy.Fleet != "lab" || policy.Bastion != "bastion.lab.internal" {
		t.Errorf("got %+v", policy)
	}
	out, err := exec.CommandContext(ctx, "bastion", "audit", "reconcile", "--dir", filepath.Join(dir, "audit"), "--logins", filepath.Join(dir, "logins.js"), "--alert", config).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 || strings.Contains(string(out), "telling the bastion") {
		t.Errorf("reconcile: %v\n%s", err, out)
	}
	if a := take(); a.Kind != alert.UnrecordedLogin || !strings.HasPrefix(a.Subject, "mallory on se-1") {
		t.Errorf("got %+v", a)
	}
	waitText(t, func() string { data, _ := os.ReadFile(got); return string(data) }, string(alert.UnrecordedLogin))

	reader := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	counted := func() string {
		resp, err := reader.Get("http://bastion/metrics")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	waitText(t, counted, `mayfly_bastion_alerts_total{kind="unrecorded_login",outcome="sent"} 2`)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(counted()))
	if err != nil || families["mayfly_bastion_alerts_delivering"].GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Errorf("metrics: %v", err)
	}
	// TERM reaches the whole group, and what comes last is still delivered.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said())
	}
	for line := range strings.Lines(said()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
		if strings.Contains(line, "s3cret") {
			t.Errorf("the token is in the log: %s", line)
		}
	}
}
