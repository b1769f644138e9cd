package history

import "fmt"

// Reason is why a history does not pass.
type Reason string

// The reasons, docs/formats/history.md.
const (
	Shallow         Reason = "history_shallow"
	NoAncestor      Reason = "history_no_ancestor"
	TooLong         Reason = "history_too_long"
	Malformed       Reason = "history_malformed"
	Damaged         Reason = "history_damaged"
	Unsigned        Reason = "history_unsigned"
	BadSignature    Reason = "history_signature"
	SignerUnknown   Reason = "history_signer_unknown"
	NotAFile        Reason = "history_not_a_file"
	NotApproved     Reason = "history_not_approved"
	DeepNotApproved Reason = "history_deep_not_approved"
)

// Reasons are all of them.
var Reasons = []Reason{Shallow, NoAncestor, TooLong, Malformed, Damaged, Unsigned, BadSignature, SignerUnknown, NotAFile, NotApproved, DeepNotApproved}

// Refusal is one thing that does not pass.
type Refusal struct {
	Reason Reason
	Commit string // or empty: it is about the whole repository
	Text   string
}

func refuse(reason Reason, commit, format string, args ...any) *Refusal {
	return &Refusal{reason, commit, fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string {
	if r.Commit == "" {
		return fmt.Sprintf("%s: %s", r.Reason, r.Text)
	}
	return fmt.Sprintf("%s: commit %s: %s", r.Reason, short(r.Commit), r.Text)
}

// Refused makes a program exit with "refused by policy".
func (r *Refusal) Refused() bool { return true }
