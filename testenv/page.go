package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"

	"mayfly/internal/pki"
	"mayfly/testenv/netlab"
)

// Files with which the engineer opens the status page.
func (e *environment) pageKey() string         { return e.path("page.key") }
func (e *environment) pageRequest() string     { return e.path("page.csr") }
func (e *environment) pageCertificate() string { return e.path("page.pem") }
func (e *environment) pageAddress() string     { return e.path("run", "page") }

// page opens a loopback port of this machine that leads to the status page, and has the engineer's key certified for it.
func (d *demo) page(ctx context.Context) error {
	e := d.e
	_, err := d.daemon(ctx, "forward-page", netlab.Namespace{}, ready, d.background(e.bin("testenv"), "part", "forward",
		"--to", netip.AddrPortFrom(netlab.Controller, pagePort).String(), "--namespace", e.lab.Core.Name, "--from", netlab.Controller.String(),
		"--port-file", e.pageAddress()))
	if err != nil {
		return err
	}
	key, csr, err := pki.NewOperatorKey(engineer)
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.pageKey(), key, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(e.pageRequest(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644); err != nil {
		return err
	}
	if _, err := d.fleetctl(ctx, "page-certificate", engineer, "--dir", ".", "--csr", e.pageRequest(), "--out", e.pageCertificate()); err != nil {
		return err
	}
	return e.owner.give(e.pageKey(), e.pageCertificate())
}

// pageToTry says how to open the page: what curl does with two files, a browser does with both of them imported.
func (e *environment) pageToTry() string {
	address, err := os.ReadFile(e.pageAddress())
	if err != nil {
		return ""
	}
	dir := shorten(e.dir)
	return fmt.Sprintf(`  curl --cacert %[1]s/fleet/public/page.pem --cert %[1]s/page.pem --key %[1]s/page.key https://%[2]s/status.json
  openssl pkcs12 -export -in %[1]s/page.pem -inkey %[1]s/page.key -out page.p12   # for a browser, and then https://%[2]s/ (it is signed by itself: public/page.pem)
`, dir, address)
}
