package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"mayfly/internal/command"
	"mayfly/internal/durable"
	"mayfly/internal/hint"
	"mayfly/policies/trust"
	"mayfly/rebuild/image"
	"mayfly/rebuild/release"
	"mayfly/rebuild/ticket"
	"mayfly/rebuild/uki"
)

// osRelease is what firmware menus and systemd-stub call the image. It names no version, so that it is the same for the same parts.
const osRelease = "ID=mayfly\nNAME=mayfly\n"

// makeUKI makes the unified kernel image of a built image, with the fleet's trust policy inside, and writes it into the statement.
// An image whose lock pins no EFI stub gets none.
func makeUKI(dir string, built image.Result, trustPolicy []byte, s *release.Statement) error {
	if len(built.EFIStub) == 0 {
		return nil
	}
	kernel, err := readBounded(filepath.Join(dir, release.KernelFile), "", uki.MaxImage)
	if err != nil {
		return err
	}
	stub, err := readBounded(filepath.Join(dir, release.StubFile), "", uki.MaxImage)
	if err != nil {
		return err
	}
	initrd, err := uki.Initrd(stub, ticket.TrustFile, trustPolicy)
	if err != nil {
		return err
	}
	data, err := uki.Build(uki.Parts{Stub: built.EFIStub, Kernel: kernel, Initrd: initrd, Cmdline: built.Cmdline, OSRelease: osRelease, Uname: built.Uname})
	if err != nil {
		return err
	}
	sum, err := uki.Authenticode(data)
	if err != nil {
		return err
	}
	kernelSum, err := uki.Authenticode(kernel)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(data)
	s.UKI = &release.Part{Size: int64(len(data)), SHA256: hex.EncodeToString(hash[:])}
	s.UKIAuthenticode, s.KernelAuthenticode = hex.EncodeToString(sum[:]), hex.EncodeToString(kernelSum[:])
	return durable.WriteFile(filepath.Join(dir, release.UKIFile), data, 0o644)
}

// checkUKI compares a release's unified kernel image with what its statement says it is made of, and the signed one, if it is there,
// with the unsigned and with the fleet's certificates. A release without one passes.
func (d state) checkUKI(c *command.Call, t *trust.Trust, trustNow []byte, s *release.Statement, dir string) error {
	b := d.believed(t, trustNow)
	inside, err := b.checkUKI(c, s, dir)
	if err == nil && inside != nil && inside.Version < t.Version {
		fmt.Fprintf(c.Stderr, "fleetctl: warning: %s holds trust policy %d; %d is in force: servers that boot by UEFI go by the older one\n",
			filepath.Join(dir, release.UKIFile), inside.Version, t.Version)
	}
	return err
}

// checkUKI also returns the trust policy inside; none where the release has no such image.
func (b believed) checkUKI(c *command.Call, s *release.Statement, dir string) (*trust.Trust, error) {
	if s.UKI == nil {
		return nil, nil
	}
	data, inside, err := b.checkUnsigned(s, dir)
	if err != nil {
		return nil, err
	}
	certificate, err := checkSignedUKI(b.trust, data, filepath.Join(dir, release.SignedUKIFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(c.Stderr, "fleetctl: note: %s is not there: Secure Boot will not start this release (`fleetctl image sign-efi`)\n", release.SignedUKIFile)
		return inside, nil
	case err != nil:
		return nil, err
	}
	fmt.Fprintf(c.Stderr, "fleetctl: %s is signed for Secure Boot by %s\n", release.SignedUKIFile, visible(certificate.Subject.String()))
	return inside, nil
}

// checkUnsigned is what can be said of the image without its Secure Boot signature.
func (b believed) checkUnsigned(s *release.Statement, dir string) (data []byte, inside *trust.Trust, err error) {
	path := filepath.Join(dir, release.UKIFile)
	if data, err = readUKI(path, s); err != nil {
		return nil, nil, err
	}
	kernel, err := readBounded(filepath.Join(dir, release.KernelFile), "", uki.MaxImage)
	if err != nil {
		return nil, nil, err
	}
	stub, err := readBounded(filepath.Join(dir, release.StubFile), "", uki.MaxImage)
	if err != nil {
		return nil, nil, err
	}
	policy, err := uki.Check(data, kernel, stub, s.Cmdline, ticket.TrustFile)
	if err == nil {
		inside, err = b.inside(policy)
	}
	if err == nil {
		err = checkAuthenticode(s, data, kernel)
	}
	if err != nil {
		mend := hint.Of(err)
		if mend == "" {
			mend = "build the release again: `fleetctl image build`"
		}
		return nil, nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "%s", mend))
	}
	return data, inside, nil
}

func errNoUKI() error {
	return hint.New(errors.New("the release has no unified kernel image"), "its lock file pins no EFI stub: make a new one with `fleetctl image lock`")
}

// readUKI reads the unsigned image and compares its hash.
func readUKI(path string, s *release.Statement) ([]byte, error) {
	if s.UKI == nil {
		return nil, errNoUKI()
	}
	data, err := readBounded(path, "`fleetctl image build` makes it", uki.MaxImage)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.UKI.SHA256 {
		return nil, command.Refuse(fmt.Errorf("%s: %s: SHA-256 %x, %s was signed", path, release.PartAltered, sum, s.UKI.SHA256))
	}
	return data, nil
}

func checkAuthenticode(s *release.Statement, data, kernel []byte) error {
	for _, one := range []struct {
		what, want string
		data       []byte
	}{{"uki_authenticode", s.UKIAuthenticode, data}, {"kernel_authenticode", s.KernelAuthenticode, kernel}} {
		sum, err := uki.Authenticode(one.data)
		if err != nil {
			return err
		}
		if hex.EncodeToString(sum[:]) != one.want {
			return fmt.Errorf("%s: the statement says %s %s, it is %x", uki.Differs, one.what, one.want, sum)
		}
	}
	return nil
}

// checkSignedUKI wants the signed image to be the unsigned one, signed under a certificate that the trust policy lists.
func checkSignedUKI(t *trust.Trust, unsigned []byte, path string) (*x509.Certificate, error) {
	data, err := readBounded(path, "`fleetctl image sign-efi` makes it", uki.MaxImage)
	if err != nil {
		return nil, err
	}
	certificates, err := uki.Certificates(data)
	if err != nil {
		return nil, command.Refuse(fmt.Errorf("%s: %s: %w", path, uki.Malformed, err))
	}
	listed := slices.DeleteFunc(certificates, func(c *x509.Certificate) bool { return !listedCertificate(t, c) })
	certificate, err := uki.Verify(data, listed)
	if err != nil {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %w", path, err), "secure_boot in the trust policy lists the certificates; `fleetctl image sign-efi` signs"))
	}
	if back, err := uki.Unsigned(data); err != nil || !bytes.Equal(back, unsigned) {
		return nil, command.Refuse(hint.New(fmt.Errorf("%s: %s: without its signature it is not %s", path, uki.Differs, release.UKIFile), "sign it again: `fleetctl image sign-efi`"))
	}
	return certificate, nil
}

// listedCertificate says whether the trust policy lists a Secure Boot certificate.
func listedCertificate(t *trust.Trust, c *x509.Certificate) bool {
	sum := sha256.Sum256(c.Raw)
	return slices.Contains(t.SecureBoot, hex.EncodeToString(sum[:]))
}

// secureBoot is the trust policy's list with the hashes of further certificates.
func secureBoot(list, files []string) ([]string, error) {
	for _, file := range files {
		certificate, err := readCertificate(file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(certificate.Raw)
		if text := hex.EncodeToString(sum[:]); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list, nil
}
