package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"mayfly/bastion/recording"
)

// writeRecording writes a recording, a cut one, the identity that it is for and another.
func writeRecording(dir string) error {
	var identities []*age.HybridIdentity
	for _, name := range []string{"reader.key", "other.key"} {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("# made by a test\n"+id.String()+"\n"), 0o600); err != nil {
			return err
		}
		identities = append(identities, id)
	}
	recipients, err := recording.ParseRecipients([]string{identities[0].Recipient().String()})
	if err != nil {
		return err
	}
	r, err := recording.Create(dir, "one", recipients, recording.Header{Title: "anna@se-1"}, time.Now(), recording.Bounds{})
	if err != nil {
		return err
	}
	err = r.Output(0, []byte("hello €\n"))
	if _, closed := r.Close("client_closed"); err != nil || closed != nil {
		return errors.Join(err, closed)
	}
	data, err := os.ReadFile(filepath.Join(dir, r.Name()))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cut"+recording.Suffix), data[:len(data)-20], 0o600)
}
