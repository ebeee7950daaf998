"""What makes images: `gemini` asks Google's models, `offline` composes the inputs itself."""
