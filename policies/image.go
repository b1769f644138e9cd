package policies

import (
	"mayfly/internal/tomlfile"
)

// What is asked of a server's TPM and disks.
const (
	TPMRequired = "required" // no certificate without a quote that proves what was started
	TPMOff      = "off"      // the ticket is enough; such a life is claimed, never attested
	DisksRefuse = "refuse"   // a server with a disk does not go on
	DisksUnbind = "unbind"   // the disk's driver is taken off before anything reads it
)

// RequiresTPM says what a server's TPM has to do: TPMRequired unless the policy says otherwise.
func (i Image) RequiresTPM() string {
	if i.TPM == TPMOff {
		return TPMOff
	}
	return TPMRequired
}

// OnDisks says what becomes of disks: DisksRefuse unless the policy says otherwise.
func (i Image) OnDisks() string {
	if i.Disks == DisksUnbind {
		return DisksUnbind
	}
	return DisksRefuse
}

func (p Policy) checkImage() error {
	if t := p.Image.TPM; t != "" && t != TPMRequired && t != TPMOff {
		return tomlfile.At("image.tpm", `tpm = "required" or tpm = "off"`, "image.tpm is %q", t)
	}
	if d := p.Image.Disks; d != "" && d != DisksRefuse && d != DisksUnbind {
		return tomlfile.At("image.disks", `disks = "refuse" or disks = "unbind"`, "image.disks is %q", d)
	}
	return nil
}
