package bastion

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"mayfly/policies"
)

// The texts of errors that the library does not export; TestLibraryErrors pins each.
const (
	libraryNoTouch      = "ssh: signature missing required user presence flag"
	libraryBadSignature = "ssh: signature did not verify"
	libraryTooMany      = "too many authentication"
	libraryDisconnect   = "ssh: disconnect, reason"
)

// attempts is what a client tried, as the library reports it.
type attempts struct {
	total     int
	none      bool
	password  bool
	other     bool // a method that is neither of these nor publickey
	waived    bool // a certificate that waives touch
	malformed bool // a key that does not parse, or an algorithm that is not accepted
}

// attempted hears of each attempt that the library has answered.
func (v *visit) attempted(_ ssh.ConnMetadata, method string, err error) {
	if method == "none" {
		v.tried.none = true
		return
	}
	v.tried.total++
	switch {
	case method == "password":
		v.tried.password = true
	case method != "publickey":
		v.tried.other = true
	case errors.Is(err, errNoTouch):
		v.tried.waived = true
	case err != nil && !errors.Is(err, errRefused):
		v.tried.malformed = true
	}
}

// explain maps the end of a failed handshake to one reason: a signature that ended it first, then what the policy said of a
// proven key, then what the library refused, then what the client did not do.
func (v *visit) explain(err error) (policies.Reason, string) {
	var negotiation *ssh.AlgorithmNegotiationError
	var library *ssh.ServerAuthError
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	authenticating := v.meta != nil

	switch text := err.Error(); {
	case v.place != nil && v.place.evicted.Load():
		return evictedReason, ""
	case text == libraryNoTouch:
		return keyNoTouch, ""
	case text == libraryBadSignature || authenticating && isCryptoError(text):
		return badSignature, text
	case v.denied != nil:
		return v.denied.Reason, v.denied.Detail
	case errors.As(err, &negotiation):
		return noCommonAlgorithm, text
	case timeout:
		return handshakeTimeout, ""
	case v.tried.password:
		return methodPassword, ""
	case v.tried.other:
		return methodRefused, ""
	case v.tried.waived:
		return policies.CertificateOption, errNoTouch.Error()
	case v.tried.malformed:
		return keyMalformed, text
	case errors.As(err, &library) && strings.Contains(text, libraryTooMany):
		return tooManyTries, ""
	case v.tried.none:
		return noKey, ""
	case errors.As(err, &library): // nothing was tried
		return leftEarly, ""
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), isReset(err),
		isDisconnect(err):
		return leftEarly, ""
	default:
		return protocolError, text
	}
}

// isCryptoError knows the errors that standard library keys return for a signature that does not verify.
func isCryptoError(text string) bool {
	return strings.HasPrefix(text, "crypto/rsa: verification error")
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

func isDisconnect(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), libraryDisconnect)
}
