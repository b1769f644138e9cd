package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"time"

	"mayfly/rebuild/cpio"
	"mayfly/rebuild/medium"
	"mayfly/rebuild/uki"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	d := "/tmp/UEFI/"
	stub := must(os.ReadFile(d + "sbe/usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	kernel := must(os.ReadFile(d + "kern/boot/vmlinuz-6.1.0-56-cloud-amd64"))
	var initrd bytes.Buffer
	files := []cpio.File{{Path: "init", Mode: 0o755, Data: must(os.ReadFile(d + "probe"))},
		{Path: "dev", Mode: fs.ModeDir | 0o755},
		{Path: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Path: "modules", Mode: fs.ModeDir | 0o755},
		{Path: "modules/efivarfs.ko", Mode: 0o644, Data: must(os.ReadFile(d + "kern/lib/modules/6.1.0-56-cloud-amd64/kernel/fs/efivarfs/efivarfs.ko"))},
	}
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	now := time.Now()
	cert := must(uki.Certify("mayfly test db", key, now, now.AddDate(20, 0, 0)))
	files = append(files, cpio.File{Path: "enrol", Mode: fs.ModeDir | 0o755})
	list := uki.SignatureList("demo", cert)
	order := ""
	for _, v := range []uki.Variable{uki.DB, uki.KEK, uki.PK} {
		up := must(uki.SignedUpdate(v, list, key, cert, now))
		attr := []byte{uki.VariableAttributes, 0, 0, 0}
		files = append(files, cpio.File{Path: "enrol/" + v.File(), Mode: 0o644, Data: append(attr, up...)})
		order += v.File() + "\n"
	}
	if len(os.Args) > 1 {
		files = append(files, cpio.File{Path: "enrol/order", Mode: 0o644, Data: []byte(order)})
	}
	if err := cpio.Write(&initrd, files); err != nil {
		panic(err)
	}
	in := must(uki.Initrd(initrd.Bytes(), "/trust.json", []byte("trust")))
	t := time.Now()
	image := must(uki.Build(uki.Parts{Stub: stub, Kernel: kernel, Initrd: in, Cmdline: "console=ttyS0 quiet loglevel=3 panic=-1", OSRelease: "ID=mayfly\nNAME=mayfly\n", Uname: "6.1"}))
	fmt.Println("build", time.Since(t), len(image))
	fmt.Printf("authenticode %x kernel %x\n", must(uki.Authenticode(image)), must(uki.Authenticode(kernel)))
	signed := must(uki.Sign(image, key, cert))
	fmt.Println(must(uki.Verify(signed, []*x509.Certificate{cert})).Subject)
	os.WriteFile(d+"try/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644)
	os.WriteFile(d+"try/list.esl", list, 0o644)
	os.WriteFile(d+"try/uki.efi", image, 0o644)
	os.WriteFile(d+"try/signed.efi", signed, 0o644)
	creds := []medium.Credential{{Name: "ticket.json", Data: []byte("ticket")}, {Name: "ticket.json.sig", Data: []byte("sig")}}
	for name, write := range map[string]func() ([]byte, error){
		"usb.img": func() ([]byte, error) {
			var b bytes.Buffer
			err := medium.USB(&b, signed, creds)
			return b.Bytes(), err
		},
		"cd.iso": func() ([]byte, error) {
			var b bytes.Buffer
			err := medium.ISO(&b, signed, creds)
			return b.Bytes(), err
		},
	} {
		t := time.Now()
		data := must(write())
		fmt.Printf("%s %v %d %x\n", name, time.Since(t), len(data), sha256.Sum256(data))
		os.WriteFile(d+"try/"+name, data, 0o644)
	}
}
