//go:build pcsc

package cardpeers

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/testenv/pivcard"
)

// Debian's PKCS #11 libraries for PIV cards.
const (
	ykcs11       = "/usr/lib/*-linux-gnu/libykcs11.so"
	openscPKCS11 = "/usr/lib/*-linux-gnu/opensc-pkcs11.so"
)

// Keys as the libraries number them.
const (
	id9a      = "01"
	id9c      = "02"
	idDevice  = "19" // ykcs11: slot f9
	factory3D = "010203040506070801020304050607080102030405060708"
)

// library is the file of a library.
func library(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: got %q, %v, want one library", pattern, found, err)
	}
	return found[0]
}

// pkcs11 runs pkcs11-tool with a library; login is for the user's PIN.
func (d *desk) pkcs11(library string, args ...string) said {
	d.t.Helper()
	return d.run("pkcs11-tool", append([]string{"--module", library}, args...)...)
}

func login(pin string, args ...string) []string {
	return append([]string{"--login", "--pin", pin}, args...)
}

func administer(key string, args ...string) []string {
	return append([]string{"--login", "--login-type", "so", "--so-pin", key}, args...)
}

// holdTouchKey puts a key that wants touches, and a certificate over it, in place of the one that the libraries have made: they know
// no touch policies.
func (d *desk) holdTouchKey() {
	d.t.Helper()
	public, err := d.card.Generate(pivcard.KeyPlan{Slot: "9a", Algorithm: "p256", PIN: "once", Touch: "always"})
	if err != nil {
		d.t.Fatal(err)
	}
	file := d.write("touch.pem", pemOf("CERTIFICATE", d.certify(public).Raw))
	d.must(d.run("yubico-piv-tool", "-a", "import-certificate", "-s", "9a", "-i", file))
}

// same holds one key to another.
func (d *desk) same(got, want crypto.PublicKey) {
	d.t.Helper()
	if key, ok := got.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(want) {
		d.t.Errorf("got another key, %v, want %v", got, want)
	}
}

// dumped reads the last answer that piv-tool shows: lines of sixteen bytes in hexadecimal, and what they are as text.
func (d *desk) dumped(said string) []byte {
	d.t.Helper()
	const columns = 16 * len("00 ")
	var all []byte
	for line := range strings.Lines(said[strings.LastIndex(said, "Received"):]) {
		if len(line) <= columns || line[2] != ' ' {
			continue
		}
		bytes, err := hex.DecodeString(strings.ReplaceAll(line[:columns], " ", ""))
		if err != nil {
			d.t.Fatalf("piv-tool's line %q: %v", line, err)
		}
		all = append(all, bytes...)
	}
	return all
}

// useYKCS11 uses Yubico's PKCS #11 library with OpenSC's command. Its security officer's PIN is the management key, of 3DES alone.
func useYKCS11(t *testing.T, do doer) {
	const newPIN, newKey = "654321", "1102030405060708010203040506070801020304050607aa"
	d := sit(t, older)
	module := library(t, ykcs11)
	tool := func(args ...string) said {
		d.t.Helper()
		return d.pkcs11(module, args...)
	}
	do(seen, d, func() {
		d.must(tool("--list-slots"), d.Reader(0), fmt.Sprintf("serial num         : %d", d.card.Serial()), "firmware version   : 5.43")
		d.must(tool("--list-objects"), "X.509 Certificate for PIV Attestation")
	})
	do(generate, d, func() {
		d.must(tool(administer(factory3D, "--keypairgen", "--id", id9a, "--key-type", "EC:prime256v1")...), "Private key for PIV Authentication")
		d.must(tool(administer(factory3D, "--keypairgen", "--id", id9c, "--key-type", "rsa:2048")...), "Private key for Digital Signature")
		d.mustNot(tool(administer(newKey, "--keypairgen", "--id", "03", "--key-type", "EC:prime256v1")...), "CKR_PIN_INCORRECT")
	})
	do(attest, d, func() {
		d.must(tool("--read-object", "--type", "cert", "--label", "X.509 Certificate for PIV Attestation 9a", "--output-file", "slot.der"))
		d.must(tool("--read-object", "--type", "cert", "--id", idDevice, "--output-file", "device.der"))
		d.must(tool("--read-object", "--type", "pubkey", "--id", id9a, "--output-file", "pub.der"))
		slot := d.parse(d.read("slot.der"))
		d.openssl(slot, d.parse(d.read("device.der")))
		d.same(slot.PublicKey, d.publicKey(d.read("pub.der")))
	})
	do(sign, d, func() {
		public := d.publicKey(d.read("pub.der"))
		file := d.write("message", []byte("a message"))
		d.must(tool(login(pivcard.DefaultPIN, "--sign", "--mechanism", "ECDSA-SHA256", "--id", id9a, "--input-file", file, "--output-file", "sig", "--signature-format", "openssl")...))
		d.verifies(public, []byte("a message"), d.read("sig"))
		d.must(tool(login(pivcard.DefaultPIN, "--test")...), "SHA256-RSA-PKCS: OK", "RSA-PKCS-OAEP", "No errors")
	})
	do(certificate, d, func() {
		cert := d.certify(d.publicKey(d.read("pub.der")))
		d.must(tool(administer(factory3D, "--write-object", d.write("cert.der", cert.Raw), "--type", "cert", "--id", id9a)...))
		d.must(tool("--read-object", "--type", "cert", "--label", "X.509 Certificate for PIV Authentication", "--output-file", "back.der"))
		if got := d.parse(d.read("back.der")); !got.Equal(cert) {
			d.t.Error("got another certificate back")
		}
	})
	d.holdTouchKey()
	d.touches(do, func() said {
		return tool(login(pivcard.DefaultPIN, "--sign", "--mechanism", "ECDSA-SHA256", "--id", id9a, "--input-file", d.path("message"), "--output-file", "sig", "--signature-format", "openssl")...)
	})
	do(changePIN, d, func() {
		d.must(tool(login(pivcard.DefaultPIN, "--change-pin", "--new-pin", newPIN)...))
		d.mustNot(tool(login(pivcard.DefaultPIN, "--list-objects")...), "CKR_PIN_INCORRECT")
		d.must(tool(login(newPIN, "--list-objects")...))
	})
	do(pinBlocks, d, func() {
		for range 3 {
			d.mustNot(tool(login("000000", "--list-objects")...), "CKR_PIN_INCORRECT")
		}
		d.mustNot(tool(login(newPIN, "--list-objects")...), "CKR_PIN_LOCKED")
		d.must(tool("--list-slots"), "user PIN locked")
	})
	do(management, d, func() {
		d.must(tool(administer(factory3D, "--change-pin", "--new-pin", newKey)...))
		d.mustNot(tool(administer(factory3D, "--keypairgen", "--id", "03", "--key-type", "EC:prime256v1")...), "CKR_PIN_INCORRECT")
		d.must(tool(administer(newKey, "--keypairgen", "--id", "03", "--key-type", "EC:prime256v1")...))
	})
	do(reset, d, func() {
		d.mustNot(tool("--init-token", "--label", "ignored", "--so-pin", factory3D), "CKR_PIN_INCORRECT")
		d.must(tool("--init-token", "--label", "ignored", "--so-pin", newKey))
		d.mustNot(tool("--read-object", "--type", "cert", "--label", "X.509 Certificate for PIV Attestation 9a"), "object not found")
		d.must(tool(login(pivcard.DefaultPIN, "--list-objects")...))
	})
}

// useOpenSC uses OpenSC's own library and commands. A PIV card is administrated by piv-tool, its PIN and PUK by pkcs15-tool. The key of
// piv-tool's challenge is in a file. With Debian's OpenSSL it makes keys on the card and then cannot write them down.
func useOpenSC(t *testing.T, do doer) {
	const newPIN, newPUK = "654321", "87654321"
	d := sit(t, older)
	module := library(t, openscPKCS11)
	tool := func(args ...string) said {
		d.t.Helper()
		return d.pkcs11(module, args...)
	}
	pivTool := func(args ...string) said {
		d.t.Helper()
		cmd := d.Command(d.ctx, "piv-tool", args...)
		cmd.Env = append(cmd.Env, "PIV_EXT_AUTH_KEY="+d.write("key", []byte("01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08")))
		return d.result(cmd)
	}
	pins := func(args ...string) said {
		d.t.Helper()
		return d.run("pkcs15-tool", args...)
	}
	do(seen, d, func() {
		d.must(tool("--list-slots"), d.Reader(0), "PKCS#15 emulated")
		d.must(pivTool("--name"), "Personal Identity Verification Card")
		d.must(pivTool("--send-apdu", "00:A4:04:00:05:A0:00:00:03:08", "--send-apdu", "00:FD:00:00"), "05 04 03")
	})
	do(generate, d, func() {
		for slot, algorithm := range map[string]string{"9A": "11", "9C": "07"} {
			d.says(pivTool("--admin", "M:9B:03", "--genkey", slot+":"+algorithm), "unable to gen") // its own OpenSSL; the card has made it
		}
	})
	do(attest, d, func() {
		for slot, name := range map[string]string{"9A": "9a", "9C": "9c"} { // the keys that piv-tool has made
			said := d.must(pivTool("--send-apdu", "00:A4:04:00:05:A0:00:00:03:08", "--send-apdu", "00:F9:"+slot+":00:00"), "SW1=0x90")
			der := d.dumped(said)
			cert := d.parse(der)
			if cert.Subject.CommonName != "YubiKey PIV Attestation "+name {
				d.t.Errorf("slot %s: got %s", name, cert.Subject)
			}
			d.write("slot-"+name+".der", der)
		}
	})
	do(certificate, d, func() {
		for slot, name := range map[string]string{"9A": "9a", "9C": "9c"} {
			cert := d.certify(d.parse(d.read("slot-" + name + ".der")).PublicKey)
			// Its exit status is how many bytes it wrote.
			pivTool("--admin", "M:9B:03", "--cert", slot, "--in", d.write("cert-"+name+".pem", pemOf("CERTIFICATE", cert.Raw)))
			id := map[string]string{"9a": id9a, "9c": id9c}[name]
			d.must(tool("--read-object", "--type", "cert", "--id", id, "--output-file", "back.der"))
			if got := d.parse(d.read("back.der")); !got.Equal(cert) {
				d.t.Errorf("slot %s: got another certificate back", name)
			}
		}
		d.must(tool("--list-objects"), "Certificate Object; type = X.509 cert", "CN=alice")
	})
	signs := func(pin string) said {
		d.t.Helper()
		return tool(login(pin, "--sign", "--mechanism", "ECDSA-SHA256", "--id", id9a, "--input-file", d.write("message", []byte("a message")),
			"--output-file", "sig", "--signature-format", "openssl")...)
	}
	do(sign, d, func() {
		d.must(signs(pivcard.DefaultPIN))
		d.verifies(d.parse(d.read("slot-9a.der")).PublicKey, []byte("a message"), d.read("sig"))
		d.must(tool(login(pivcard.DefaultPIN, "--test")...), "SHA256-RSA-PKCS: OK", "No errors")
	})
	d.holdTouchKey()
	d.touches(do, func() said { return signs(pivcard.DefaultPIN) })
	do(changePIN, d, func() {
		d.must(tool(login(pivcard.DefaultPIN, "--change-pin", "--new-pin", newPIN)...))
		d.mustNot(tool(login(pivcard.DefaultPIN, "--list-objects")...), "CKR_PIN_INCORRECT")
		d.must(tool(login(newPIN, "--list-objects")...))
	})
	do(changePUK, d, func() {
		d.must(pins("--change-pin", "--auth-id", "02", "--pin", pivcard.DefaultPUK, "--new-pin", newPUK))
		d.mustNot(pins("--unblock-pin", "--puk", pivcard.DefaultPUK, "--new-pin", newPIN), "tries left: 2")
	})
	do(pinBlocks, d, func() {
		for range 3 {
			d.mustNot(tool(login("000000", "--list-objects")...), "CKR_PIN_INCORRECT")
		}
		d.mustNot(tool(login(newPIN, "--list-objects")...), "CKR_PIN_LOCKED")
	})
	do(unblock, d, func() {
		d.must(pins("--unblock-pin", "--puk", newPUK, "--new-pin", pivcard.DefaultPIN))
		d.must(pins("--verify-pin", "--pin", pivcard.DefaultPIN))
	})
	do(pukBlocks, d, func() {
		for _, left := range []string{"tries left: 2", "tries left: 1", "tries left: 0"} {
			d.mustNot(pins("--unblock-pin", "--puk", "00000000", "--new-pin", newPIN), left)
		}
		d.mustNot(pins("--unblock-pin", "--puk", newPUK, "--new-pin", newPIN), "blocked")
		d.must(pins("--verify-pin", "--pin", pivcard.DefaultPIN))
	})
}
