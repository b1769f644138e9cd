package bastion

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/internal/pki"
	"mayfly/internal/renewal"
	"mayfly/inventory"
)

// renewLimit bounds one request to the controller.
const renewLimit = 20 * time.Second

// Renew keeps the host certificate young until ctx ends, or renews it once. It calls ready, if it stays, with the time of the first renewal. It runs beside the bastion, in a process of its own: what
// faces engineers needs no way to the controller, and no right to write its certificate. It proves itself with the host key, which
// can ask for its own next certificate and for nothing else.
func Renew(ctx context.Context, c Config, once bool, log *slog.Logger, ready func(due time.Time)) error {
	if c.ControllerCA == "" {
		return hint.New(errors.New("renewing the host certificate: controller_ca is missing"),
			"controller_ca = \"tls-ca.pem\": the file that fleetctl init made; without a controller, fleetctl certify --renew")
	}
	r := renewer{config: c}
	if once {
		end, err := r.renew(ctx)
		if err == nil {
			log.Info("host certificate renewed", "until", end)
		}
		return err
	}
	due, err := r.due()
	if err != nil {
		return err // what is wrong from the start is not for trying again
	}
	ready(due)
	renewal.Keep(ctx, due, func(ctx context.Context) (time.Time, error) {
		end, err := r.renew(ctx)
		if err == nil {
			log.Info("host certificate renewed", "until", end)
		}
		return end, err
	}, func(err error, pause time.Duration) {
		log.Error("the host certificate was not renewed", "error", err, "hint", hint.Of(err), "again_in", pause.Round(time.Second))
	})
	return nil
}

type renewer struct{ config Config }

// due is when the certificate that is there has passed half of its life.
func (r renewer) due() (time.Time, error) {
	certificate, err := readCertificate(r.config.HostCertificate)
	if err != nil {
		return time.Time{}, hint.New(fmt.Errorf("reading host certificate: %w", err), certifyHint)
	}
	k := hostKeys{certificate: certificate}
	began := time.Unix(int64(min(certificate.ValidAfter, 1<<40)), 0)
	return renewal.Due(began, k.validBefore()), nil
}

// renew asks once and puts the answer in place, whole.
func (r renewer) renew(ctx context.Context) (end time.Time, err error) {
	now := time.Now()
	// Which version is in force is the bastion's to judge, and its own directory is not this process's to read: an older one
	// says at most that the controller was elsewhere (docs/threat-model.md).
	b, err := loadBundle(r.config, seenPolicy{}, now)
	if err != nil {
		return time.Time{}, err
	}
	key, err := readHostKey(r.config.HostKey)
	if err != nil {
		return time.Time{}, err
	}
	old, err := readCertificate(r.config.HostCertificate)
	if err != nil {
		return time.Time{}, hint.New(fmt.Errorf("reading host certificate: %w", err), certifyHint)
	}
	name, err := bastionName(old, b.Inventory)
	if err != nil {
		return time.Time{}, err
	}
	request, err := renewal.Make(key, b.Inventory.Name, name, now)
	if err != nil {
		return time.Time{}, err
	}
	answer, err := r.ask(ctx, b.Inventory, request)
	if err != nil {
		return time.Time{}, fmt.Errorf("asking the controller for a host certificate of %s: %w", name, err)
	}
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(answer.Certificate))
	certificate, ok := parsed.(*ssh.Certificate)
	if err != nil || !ok || len(rest) > 0 {
		return time.Time{}, errors.New("the controller's answer is no certificate")
	}
	if err := checkCertificate(certificate, key.PublicKey(), now); err != nil {
		return time.Time{}, fmt.Errorf("the certificate that came: %w", err)
	}
	if !slices.Contains(certificate.ValidPrincipals, name) {
		return time.Time{}, fmt.Errorf("the certificate that came is not of %s", name)
	}
	k := hostKeys{certificate: certificate}
	return k.validBefore(), durable.WriteFile(r.config.HostCertificate, ssh.MarshalAuthorizedKey(certificate), 0o644)
}

// bastionName is the one name in a certificate that is a bastion's of the fleet.
func bastionName(c *ssh.Certificate, f inventory.Fleet) (string, error) {
	for _, b := range f.AllBastions() {
		if slices.Contains(c.ValidPrincipals, b.Name) || slices.Contains(c.ValidPrincipals, f.FQDN(b.Name)) {
			return b.Name, nil
		}
	}
	return "", hint.New(fmt.Errorf("the host certificate names no bastion of fleet %s", f.Name), certifyHint)
}

// ask makes one request to the controller that the signed inventory names, over TLS by the fleet's own CA.
func (r renewer) ask(ctx context.Context, f inventory.Fleet, q renewal.Request) (renewal.Answer, error) {
	pem, err := durable.ReadFile(r.config.ControllerCA, maxCertificate)
	if err != nil {
		return renewal.Answer{}, hint.New(fmt.Errorf("reading the fleet's TLS CA: %w", err), "controller_ca names tls-ca.pem, which fleetctl init made")
	}
	pool, err := pki.Pool(pem)
	if err != nil {
		return renewal.Answer{}, fmt.Errorf("reading the fleet's TLS CA %s: %w", r.config.ControllerCA, err)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return renewal.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	address := netip.AddrPortFrom(f.Controller.Address, f.Controller.JoinPort)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{}).DialContext,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: f.FQDN(inventory.NameController)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address.String()+renewal.Path, bytes.NewReader(body))
	if err != nil {
		return renewal.Answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return renewal.Answer{}, hint.New(err, "is fleetctl serve running at %s, and does this host reach it?", address)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, renewal.MaxAnswer+1))
	if err != nil {
		return renewal.Answer{}, err
	}
	if len(data) > renewal.MaxAnswer {
		return renewal.Answer{}, errors.New("the answer is too long")
	}
	if response.StatusCode != http.StatusOK {
		return renewal.Answer{}, refusedRenewal(response.StatusCode, data)
	}
	var answer renewal.Answer
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&answer); err != nil {
		return renewal.Answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	return answer, nil
}

// RenewalRefused is the controller's no, with its reason code (docs/formats/join.md).
type RenewalRefused struct{ Reason, Detail string }

func (r *RenewalRefused) Error() string { return r.Reason + ": " + r.Detail }

// Refused makes a program end with the exit code of a refusal.
func (r *RenewalRefused) Refused() bool { return true }

func refusedRenewal(status int, data []byte) error {
	var r struct {
		Reason string `json:"reason"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Reason == "" || status == http.StatusInternalServerError {
		return fmt.Errorf("the controller answers with status %d", status)
	}
	refused := &RenewalRefused{Reason: escape(r.Reason, maxText), Detail: escape(r.Detail, maxDetail)}
	if r.Reason == "host_unknown" {
		return hint.New(refused, certifyHint)
	}
	return refused
}
