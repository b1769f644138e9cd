//go:build !linux

package users

import "errors"

// LayOut needs Linux: nowhere else are files given away so that nobody can exchange them meanwhile.
func (t Table) LayOut(string) error {
	if !t.Separate {
		return nil
	}
	return errors.New("laying out the state directory: users of their own need Linux")
}
