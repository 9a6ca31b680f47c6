"""Arms without hardware: real servo protocols on pseudo-terminals, and the scene that their cameras see."""
