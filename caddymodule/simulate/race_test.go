//go:build race

package simulate

// The race detector makes the store ten times slower. What it looks for is the
// same in all entries of a scheme: a few of each do. All are run by
// caddy keycaddy catalog simulate --all, and by this test without the detector.
func init() { perScheme, perMutation = 8, 1 }
