package bastion

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/rawssh"
)

// TestPipelinedRefusalLeavesNothing breaks the protocol before anybody is let in, with many packets behind the bad one, at both places at
// which the library gives up. The fixture looks for what is left.
func TestPipelinedRefusalLeavesNothing(t *testing.T) {
	for name, begin := range map[string][]byte{
		"in the place of the service": nil,
		"after it": ssh.Marshal(struct {
			Name string `sshtype:"5"`
		}{"ssh-userauth"}),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.start()
			for range 3 {
				c := f.raw(rawssh.Offer{})
				if begin != nil {
					if err := c.Write(begin); err != nil {
						t.Fatal(err)
					}
				}
				for range 200 {
					if err := c.Write([]byte{90}); err != nil {
						break
					}
				}
				c.Close()
				f.closing()
				f.forgive()
			}
		})
	}
}
