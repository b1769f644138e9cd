// Package join is what a server and its controller say to each other: one join with the ticket, renewals of short-lived
// certificates, and one outbound mTLS stream of orders and health. The controller's half is rebuild/boot.
package join

import (
	"net/netip"
	"time"
)

// Paths of the controller's join port (HTTP over TLS 1.3).
const (
	PathJoin      = "/v1/join"      // POST Request → Response; the ticket is the credential
	PathChallenge = "/v1/challenge" // POST ChallengeRequest → Challenge; the ticket is the credential, and is not used up
	PathRenew     = "/v1/renew"     // POST RenewRequest → Certificates; the current client certificate is the credential
	PathAudit     = "/v1/audit"     // POST audit.Batch → audit.Kept; the client certificate of a bastion's life is the credential
	PathReport    = "/v1/report"    // POST Report; the ticket is the credential; a boot that refuses to go on says why
)

// StreamProtocol is the ALPN name of the stream: newline-delimited JSON, FromServer one way and ToServer the other.
const StreamProtocol = "mayfly-stream/1"

// MaxFrame bounds a line of the stream and a request body, in bytes.
const MaxFrame = 4 << 20

// Request begins a life.
type Request struct {
	Ticket    []byte `json:"ticket"`     // the ticket file's exact bytes
	Signature []byte `json:"signature"`  // its SSHSIG
	CSR       []byte `json:"csr"`        // DER; Ed25519; made in this boot's RAM
	HostKey   string `json:"host_key"`   // authorized_keys form, Ed25519
	TunnelKey string `json:"tunnel_key"` // WireGuard public key, base64
	BootID    string `json:"boot_id"`    // /proc/sys/kernel/random/boot_id

	Attestation *Attestation `json:"attestation,omitempty"` // where the ticket says tpm = "required"
}

// ChallengeRequest asks for what the machine's TPM has to answer before it joins.
type ChallengeRequest struct {
	Ticket    []byte `json:"ticket"`
	Signature []byte `json:"signature"`
	EK        []byte `json:"ek"` // endorsement key, TPMT_PUBLIC
	AK        []byte `json:"ak"` // attestation key of this boot, TPMT_PUBLIC
}

// Challenge is a secret that only the TPM of both keys can decrypt, and a nonce. It is answered once.
type Challenge struct {
	Nonce     []byte `json:"nonce"`
	Blob      []byte `json:"blob"`             // TPMS_ID_OBJECT
	Encrypted []byte `json:"encrypted_secret"` // TPMS_ENCRYPTED_SECRET
}

// Attestation is what a TPM says of this boot (package rebuild/attest).
type Attestation struct {
	Nonce     []byte `json:"nonce"` // of the challenge
	EK        []byte `json:"ek"`
	AK        []byte `json:"ak"`
	Secret    []byte `json:"secret"`    // of the challenge, decrypted
	Quote     []byte `json:"quote"`     // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
	PCRs      []byte `json:"pcrs"`      // registers 4, 7, 9, 11, 12, 14 of SHA-256
	EventLog  []byte `json:"event_log"` // the firmware's, as the kernel shows it
}

// Certificates are short-lived and renewed while the server lives.
type Certificates struct {
	TLS      []byte    `json:"tls"`       // PEM chain
	Host     string    `json:"host"`      // SSH host certificate, authorized_keys form
	NotAfter time.Time `json:"not_after"` // the earlier of the two

	Ledger *Ledger `json:"ledger,omitempty"` // nil where a test fleet has no ledger
}

// Ledger is where the fleet's public ledger has this life.
type Ledger struct {
	Index uint64 `json:"index"`           // of the record
	Proof []byte `json:"proof,omitempty"` // that it is there, as soon as witnesses have cosigned it; at most MaxLedgerProof bytes
}

// MaxLedgerProof bounds the proof of a life, in bytes: a record of one is small.
const MaxLedgerProof = 32 << 10

// Admission is what the signer answers to a Request.
type Admission struct {
	Certificates
	Evidence string `json:"evidence"` // what is known of this life's boot: "attested", "claimed" or "unverified"
}

// Response admits a server.
type Response struct {
	Admission
	Bundle    []byte `json:"bundle"`     // policy bundle, exact bytes
	BundleSig []byte `json:"bundle_sig"` // its signatures
}

// MaxRequest bounds the bodies of challenge, renewal and report.
const MaxRequest = 64 << 10

// MaxJoin bounds the body of a join, which may hold an event log.
const MaxJoin = 320 << 10

// MaxAuditBatch bounds the body of a batch of audit records, which is JSON around base64.
const MaxAuditBatch = 6 << 20

// RenewRequest asks for fresh certificates for the same keys. Proof is an Ed25519 signature with the TLS key over
// "mayfly-renew/1\n" + the SHA-256 of CSR + the SHA-256 of HostKey, so that the signer need not believe the controller.
type RenewRequest struct {
	CSR     []byte `json:"csr"`
	HostKey string `json:"host_key"`
	Current []byte `json:"current"` // PEM of the certificate in use
	Proof   []byte `json:"proof"`
}

// Report is why a boot stopped.
type Report struct {
	Ticket    []byte `json:"ticket"`
	Signature []byte `json:"signature"`
	Stage     string `json:"stage"`  // "stub" or "init"
	Reason    string `json:"reason"` // reason code, for example "disk_present"
	Detail    string `json:"detail"` // at most MaxDetail bytes
}

// MaxDetail bounds Report.Detail.
const MaxDetail = 512

// FromServer is a line that a server sends. Exactly one field is set.
type FromServer struct {
	Health  *Health  `json:"health,omitempty"`
	Drained *Drained `json:"drained,omitempty"`
	Login   *Login   `json:"login,omitempty"`
}

// Health is sent on every change and at least every HealthInterval.
type Health struct {
	BootID   string            `json:"boot_id"`
	Ready    bool              `json:"ready"`    // every service runs and answers
	Services map[string]string `json:"services"` // name → "running", "starting" or the cause
	Draining bool              `json:"draining"`
	Warnings []string          `json:"warnings,omitempty"` // what people should know and keeps nothing from going on: no watchdog, a disk
}

// Bounds of Health.Warnings: how many, and bytes of each.
const (
	MaxWarnings = 8
	MaxWarning  = 256
)

// HealthInterval is the longest silence of a healthy server.
const HealthInterval = 2 * time.Second

// Drained says that nothing is in flight any more, or that the bound passed.
type Drained struct {
	Forced bool `json:"forced"` // the bound passed with peers still there
}

// Login is an engineer's login on the server, as its sshd said. It is sent until the controller has said that it is kept, on
// every stream anew.
type Login struct {
	Number uint64         `json:"number"` // of the boot's logins, from 1
	Time   time.Time      `json:"time"`   // UTC, by the server's clock
	User   string         `json:"user"`
	Method string         `json:"method"`
	Key    string         `json:"key"`              // SHA-256 fingerprint
	Peer   netip.AddrPort `json:"peer"`             // who connected: a bastion
	Unread string         `json:"unread,omitempty"` // instead of the four above: a line that begins like a login's and has another form
	Missed uint64         `json:"missed,omitempty"` // logins since the one before that could not be kept
}

// MaxLogins bounds the reports that a server keeps until the controller has them.
const MaxLogins = 1024

// ToServer is a line that the controller sends. Exactly one field is set.
type ToServer struct {
	Drain  *Drain  `json:"drain,omitempty"`
	Policy *Policy `json:"policy,omitempty"`
	Logins *Logins `json:"logins,omitempty"`
	Trust  *Trust  `json:"trust,omitempty"`
	Ledger *Ledger `json:"ledger,omitempty"`

	Extension *Signed `json:"extension,omitempty"` // rebuild/extension: the life goes on
	Order     *Signed `json:"order,omitempty"`     // rebuild/order: the machine starts anew
}

// Signed is a file that the server verifies by itself.
type Signed struct {
	File []byte `json:"file"` // exact bytes
	Sig  []byte `json:"sig"`
}

// MaxSigned bounds each part of a Signed, in bytes.
const MaxSigned = 64 << 10

// Logins says which reports of logins are kept: all with a number up to this one.
type Logins struct {
	Through uint64 `json:"through"`
}

// MaxDrain is the longest drain that may be ordered, as long as the longest drain_limit of a policy.
const MaxDrain = 10 * time.Minute

// Drain orders a server to take no new users and to let its own leave.
type Drain struct {
	Limit time.Duration `json:"limit_ns"` // 0 to MaxDrain
}

// Trust hands over a trust policy that follows another; the server verifies it itself, from the one that it has.
type Trust struct {
	Version uint64 `json:"version"`
	File    []byte `json:"file"` // exact bytes
	Sig     []byte `json:"sig"`  // the signatures that let it follow
}

// MaxTrustSteps is how many trust policies a stream begins with: the last ones. A server that is further behind gets the newest with its next life.
const MaxTrustSteps = 4

// Policy hands over a newer bundle; the server verifies it itself.
type Policy struct {
	Bundle    []byte `json:"bundle"`
	BundleSig []byte `json:"bundle_sig"`
}
