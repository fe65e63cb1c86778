"""A page that shows what one training run did, or several side by side, from what runs leave."""
