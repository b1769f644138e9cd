// Package witness is how a program knows that a signed file is the newest one, and not merely a good old one: witnesses, which the
// trust policy names, remember the newest version that enough people signed, and say so, each under its own key, in an answer to a
// question that nobody could have foreseen. It is data and decisions only; fleetctl/witness is the service, and who asks
// (bastion/fresh.go) brings its own nonce and reaches the service itself.
//
// A witness has no power: what it says opens nothing. A lying one can say that a version is newer than it is, and so hold a policy
// back; it cannot make an old one pass unless as many as the trust policy's witness_threshold lie together.
package witness

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/canonical"
	"mayfly/internal/sshsig"
	"mayfly/policies/trust"
)

// Specification constants, docs/formats/witness.md.
const (
	Kind            = "mayfly-witness/1"
	KindQuestion    = "mayfly-witness-question/1"
	KindPublication = "mayfly-witness-publication/1"
	Namespace       = "mayfly-witness" // of an answer's SSHSIG signature

	SubjectPolicy  = "policy"  // bundle.json
	SubjectRelease = "release" // release.json

	PathAnswer        = "/answer"
	PathPublish       = "/policy"
	PathRelease       = "/release"
	PathAddCheckpoint = "/add-checkpoint" // c2sp.org/tlog-witness

	nonceSize = 32
)

// Bounds of what is sent.
const (
	MaxQuestion    = 1 << 10
	MaxAnswer      = 16 << 10
	MaxPublication = 5 << 20 // a bundle in JSON in JSON: each quote of it takes two bytes
	MaxRelease     = 1 << 20 // a publication of a release
)

// Question asks for the newest version of a subject.
type Question struct {
	Kind    string `json:"kind"`
	Fleet   string `json:"fleet"`
	Subject string `json:"subject"`
	Nonce   string `json:"nonce"` // 32 bytes of the asker's, lower-case hex
}

// Answer is what a witness signs.
type Answer struct {
	Kind    string    `json:"kind"`
	Witness string    `json:"witness"` // its name in trust.json
	Fleet   string    `json:"fleet"`
	Nonce   string    `json:"nonce"` // the question's
	Subject string    `json:"subject"`
	Version uint64    `json:"version"`         // the newest that it has seen signed by enough people
	Least   uint64    `json:"least,omitempty"` // of a release: the oldest version that may still boot, as the newest says
	SHA256  string    `json:"sha256"`          // of that file's exact bytes, lower-case hex
	Time    time.Time `json:"time"`            // by the witness's clock, UTC, whole seconds
}

// Signed is an answer on its way: the exact bytes that were signed, and the armored signature.
type Signed struct {
	Answer    string `json:"answer"`
	Signature string `json:"signature"`
}

// Publication brings a file and its approvers' signatures to a witness.
type Publication struct {
	Kind       string `json:"kind"`
	Subject    string `json:"subject"`
	File       string `json:"file"`       // the exact bytes
	Signatures string `json:"signatures"` // armored blocks
}

// Ask makes a question with a nonce of its own.
func Ask(fleet, subject string) Question {
	var nonce [nonceSize]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		panic("witness: internal error: no random numbers: " + err.Error())
	}
	return Question{Kind: KindQuestion, Fleet: fleet, Subject: subject, Nonce: hex.EncodeToString(nonce[:])}
}

// ParseQuestion reads a question strictly.
func ParseQuestion(data []byte) (Question, error) {
	var q Question
	if err := canonical.Parse(data, MaxQuestion, &q); err != nil {
		return Question{}, fmt.Errorf("reading question: %w", err)
	}
	switch {
	case q.Kind != KindQuestion:
		return Question{}, fmt.Errorf("reading question: kind is %q, not %q", q.Kind, KindQuestion)
	case q.Fleet == "":
		return Question{}, errors.New("reading question: it names no fleet")
	case !isSubject(q.Subject):
		return Question{}, fmt.Errorf("reading question: unknown subject %q", q.Subject)
	case !isHex(q.Nonce, nonceSize):
		return Question{}, fmt.Errorf("reading question: the nonce is not %d bytes in lower-case hex", nonceSize)
	}
	return q, nil
}

// ParsePublication reads a publication strictly. It says nothing about the signatures in it.
func ParsePublication(data []byte) (Publication, error) {
	var p Publication
	if err := canonical.Parse(data, MaxPublication, &p); err != nil {
		return Publication{}, fmt.Errorf("reading publication: %w", err)
	}
	switch {
	case p.Kind != KindPublication:
		return Publication{}, fmt.Errorf("reading publication: kind is %q, not %q", p.Kind, KindPublication)
	case !isSubject(p.Subject):
		return Publication{}, fmt.Errorf("reading publication: unknown subject %q", p.Subject)
	case p.File == "" || p.Signatures == "":
		return Publication{}, errors.New("reading publication: file or signatures are empty")
	}
	return p, nil
}

// Sign answers a question about the policy under the witness's key.
func Sign(signer ssh.Signer, name string, q Question, version uint64, sum string, now time.Time) ([]byte, error) {
	return SignRelease(signer, name, q, version, 0, sum, now)
}

// SignRelease answers a question about releases, or with least 0 about the policy.
func SignRelease(signer ssh.Signer, name string, q Question, version, least uint64, sum string, now time.Time) ([]byte, error) {
	a := Answer{Kind: Kind, Witness: name, Fleet: q.Fleet, Nonce: q.Nonce, Subject: q.Subject, Version: version, Least: least, SHA256: sum,
		Time: now.UTC().Truncate(time.Second)}
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("making answer: %w", err)
	}
	data, err := canonical.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("making answer: %w", err)
	}
	signature, err := sshsig.Sign(signer, Namespace, data)
	if err != nil {
		return nil, fmt.Errorf("making answer: %w", err)
	}
	return canonical.Marshal(Signed{Answer: string(data), Signature: string(signature)})
}

// Open returns the answer in data if a key of the witness that it names signed it. It does not look at what it says.
func Open(t *trust.Trust, data []byte) (Answer, error) {
	var s Signed
	if err := canonical.Parse(data, MaxAnswer, &s); err != nil {
		return Answer{}, fmt.Errorf("reading answer: %w", err)
	}
	signature, err := sshsig.Parse([]byte(s.Signature))
	if err != nil {
		return Answer{}, fmt.Errorf("reading answer: %w", err)
	}
	name, ok := t.Witness(trust.FormatKey(signature.Key()))
	if !ok {
		return Answer{}, fmt.Errorf("%s is no witness's key", ssh.FingerprintSHA256(signature.Key()))
	}
	if err := signature.Verify(Namespace, []byte(s.Answer)); err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %w", name, err)
	}
	var a Answer
	if err := canonical.Parse([]byte(s.Answer), MaxAnswer, &a); err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %w", name, err)
	}
	if err := a.check(); err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %w", name, err)
	}
	if a.Witness != name {
		return Answer{}, fmt.Errorf("answer in the name of %q, signed by %s", a.Witness, name)
	}
	return a, nil
}

func (a Answer) check() error {
	switch {
	case a.Kind != Kind:
		return fmt.Errorf("kind is %q, not %q", a.Kind, Kind)
	case a.Witness == "" || a.Fleet == "":
		return errors.New("it names no witness or no fleet")
	case !isSubject(a.Subject):
		return fmt.Errorf("unknown subject %q", a.Subject)
	case !isHex(a.Nonce, nonceSize):
		return fmt.Errorf("the nonce is not %d bytes in lower-case hex", nonceSize)
	case a.Version == 0:
		return errors.New("version is 0")
	case a.Subject == SubjectPolicy && a.Least != 0 || a.Subject == SubjectRelease && (a.Least == 0 || a.Least > a.Version):
		return fmt.Errorf("least is %d: of a release it is 1 to its version, of a policy there is none", a.Least)
	case !isHex(a.SHA256, sha256.Size):
		return errors.New("sha256 is no hash in lower-case hex")
	case a.Time.IsZero():
		return errors.New("it has no time")
	}
	return nil
}

func isSubject(s string) bool { return s == SubjectPolicy || s == SubjectRelease }

func isHex(text string, size int) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == size && hex.EncodeToString(raw) == text
}

// Sum is the hash of a file as answers name it.
func Sum(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}
