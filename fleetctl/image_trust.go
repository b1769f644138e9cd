package main

import (
	"bytes"
	"flag"
	"fmt"

	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/policies/trust/chain"
	"mayfly/rebuild/uki"
)

// olderTrust is the reason of a signature that is not made: the image holds an older trust policy than the one in force.
const olderTrust = "uki_older_trust"

// believed is the trust policy in force, and where those lie that came before it.
type believed struct {
	trust *trust.Trust
	bytes []byte
	chain string
	root  *trust.Trust // what an outsider believed from the beginning, wherever its file lies; nothing else
}

func (d state) believed(t *trust.Trust, data []byte) believed {
	return believed{trust: t, bytes: data, chain: d.chainDir()}
}

// inside wants the trust policy inside a unified kernel image to be the one in force, or one that it goes back to: a server that boots the image by
// UEFI believes it and nothing else. What merely lies in the directory of trust policies is nobody's word.
func (b believed) inside(data []byte) (*trust.Trust, error) {
	if bytes.Equal(data, b.bytes) {
		return b.trust, nil
	}
	old, err := trust.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: the trust policy inside: %w", uki.Differs, err)
	}
	if b.root != nil && b.root.Sum() == trust.Sum(data) {
		return old, nil
	}
	none := fmt.Errorf("%s: the trust policy inside is version %d of fleet %s, sha256 %s, and none of this fleet's", uki.Differs, old.Version, visible(old.Fleet), trust.Sum(data))
	if old.Version >= b.trust.Version || old.Fleet != b.trust.Fleet {
		return nil, none
	}
	was, err := chain.Back(b.trust, old.Version, b.chain)
	if err != nil {
		return nil, hint.New(fmt.Errorf("%w: %w", none, err), "%s", hint.Of(err))
	}
	if !bytes.Equal(was, data) {
		return nil, none
	}
	return old, nil
}

// olderTrustFlag is what lets a person sign an image with an older trust policy inside.
func olderTrustFlag(fs *flag.FlagSet) *bool {
	return fs.Bool("older-trust", false, "sign although the unified kernel image holds an older trust policy than the one in force")
}

// notOlder refuses a new signature under an image that holds an older trust policy than the one in force: whom the fleet took out since then counts
// again on every server that boots it by UEFI. inside is none where a release has no such image.
func (b believed) notOlder(inside *trust.Trust, path string, allowed bool) error {
	if inside == nil || inside.Version >= b.trust.Version || allowed {
		return nil
	}
	return command.Refuse(hint.New(fmt.Errorf("%s: %s: it holds trust policy %d, and %d is in force: servers that boot it by UEFI go by the older one", path, olderTrust, inside.Version, b.trust.Version),
		"build and sign a new release: `fleetctl image build`; --older-trust signs this one all the same"))
}
